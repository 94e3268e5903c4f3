// The page as a person uses it, against the mock farm, in a document without a browser.
import { createRouterTransport } from "@connectrpc/connect";
import { Code } from "@connectrpc/connect";
import { fireEvent, render, screen, waitFor, within } from "@testing-library/preact";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MockBackend } from "../mock/backend";
import { FARM } from "../mock/farm";
import { createApi } from "../src/api/transport";
import { App } from "../src/app";
import { PresenceState } from "../src/gen/pasamanos/v1/resources_pb";
import { setLanguage } from "../src/i18n";
import { navigate, startRoute } from "../src/route";

const SLOW = { timeout: 4_000 };
const get = (id: string) => screen.getByTestId(id);
const find = (id: string) => screen.findByTestId(id, undefined, SLOW);
const type = (id: string, value: string) => fireEvent.input(get(id), { target: { value } });
const outcome = (state: string) => waitFor(() => expect(get("outcome").dataset.state).toBe(state), SLOW);

describe("the page", () => {
  let backend: MockBackend;
  const open = async (path: string) => {
    const [, , farm = "", , feeder = ""] = path.split("/");
    navigate({ farm, feeder }, true);
    render(<App api={createApi(createRouterTransport(backend.routes))} />);
    await find("tank-a-01");
  };

  beforeEach(() => {
    backend = new MockBackend();
    backend.delayMs = 60;
  });
  afterEach(() => navigate({ farm: "", feeder: "" }, true));

  it("shows the farm: who it is, whether it is there, every tank", async () => {
    await open(`/${FARM}`);
    expect(get("farm-name").textContent).toBe("Arava North");
    expect(get("presence").dataset.state).toBe("online");
    expect(get("presence").textContent).toMatch(/since .* 2.h 11.min/);
    expect(get("stream").dataset.state).toBe("live");
    expect(screen.getAllByTestId(/^tank-/)).toHaveLength(20);
    await waitFor(() => expect(localStorage.getItem("pasamanos.farm")).toBe("arava-north"));
  });

  it("opens the farm of the last time, or the one in the address", () => {
    localStorage.setItem("pasamanos.farm", "arava-north");
    startRoute();
    expect(location.pathname).toBe("/farms/arava-north");
    history.replaceState(null, "", "/?farm=south-hall");
    startRoute();
    expect(location.pathname).toBe("/farms/south-hall");
  });

  it("finds and filters", async () => {
    await open(`/${FARM}`);
    type("search", "tank a7");
    await waitFor(() => expect(screen.getAllByTestId(/^tank-/)).toHaveLength(1));
    type("search", "");
    fireEvent.click(get("filter-held"));
    await waitFor(() => expect(screen.getAllByTestId(/^tank-/).map((e) => e.dataset.testid)).toEqual(["tank-a-05"]));
  });

  it("changes a config: old against new, what it means, applied", async () => {
    await open(`/${FARM}`);
    fireEvent.click(get("feeder-a-01"));
    type("field-portion_mg", "200");
    expect((await find("preview")).textContent).toContain("Meals left today");
    fireEvent.click(get("review"));
    expect((await find("diff")).textContent?.replace(/\u00a0/g, " ")).toContain("Portion150 mg200 mg");
    fireEvent.click(get("apply"));
    await outcome("APPLIED");
    expect(get("outcome").textContent).toContain("read back from the PLC");
    await waitFor(() => expect((get("field-portion_mg") as HTMLInputElement).value).toBe("200"));
    expect(get("config-version").dataset.version).toBe("2");
    // What was ordered from here is no news; a change at the farm right after is.
    backend.editAtFarm("a-01", (c) => {
      c.portionMg = 180;
    });
    expect((await find("notice")).textContent?.replace(/\u00a0/g, " ")).toContain("Portion 200 mg → 180 mg");
    expect(screen.getAllByTestId("notice")).toHaveLength(1);
    expect(screen.queryByTestId("reverted")).toBeNull();
  });

  it("says so where the farm brings back what was before, with both versions", async () => {
    await open(`/${FARM}/feeders/a-01`);
    type("field-portion_mg", "200");
    await find("preview");
    fireEvent.click(get("review"));
    fireEvent.click(await find("apply"));
    await outcome("APPLIED");
    expect(screen.queryByTestId("reverted")).toBeNull();
    backend.editAtFarm("a-01", (c) => {
      c.portionMg = 150;
    });
    expect((await find("reverted")).textContent).toContain("Version 1 is back in place of version 2");
    expect((await find("notice")).textContent).toContain("Brought version 1 back, in place of version 2");
    expect(get("tank-a-01").textContent).toContain("Put back at the farm");
  });

  it("shows what the server refuses at its field and takes the person there", async () => {
    await open(`/${FARM}/feeders/a-01`);
    type("field-portion_mg", "1500");
    expect((await find("error-daily_cap_mg")).textContent?.replace(/\u00a0/g, " ")).toBe("The day’s meals need 144 g; the cap is 28.8 g.");
    fireEvent.click(get("review"));
    await waitFor(() => expect(document.activeElement).toBe(get("field-daily_cap_mg")));
    expect(screen.queryByTestId("apply")).toBeNull();
  });

  it("says at once what it sees itself", async () => {
    await open(`/${FARM}/feeders/a-01`);
    type("field-portion_mg", "155");
    expect((await find("error-portion_mg")).textContent).toContain("steps of");
    expect(get("field-portion_mg").getAttribute("aria-invalid")).toBe("true");
    fireEvent.click(get("review"));
    expect(document.activeElement).toBe(get("field-portion_mg"));
  });

  it("never overwrites what the farm changed: shows all three and lets the person decide", async () => {
    await open(`/${FARM}/feeders/a-01`);
    type("field-portion_mg", "200");
    backend.editAtFarm("a-01", (c) => {
      c.portionMg = 180;
      c.dailyCapMg = 40_000;
    });
    const conflict = await find("conflict");
    expect(conflict.textContent?.replace(/\u00a0/g, " ")).toContain("Portion150 mg180 mg200 mg");
    expect((await find("notice")).textContent?.replace(/\u00a0/g, " ")).toContain("Portion 150 mg → 180 mg");
    fireEvent.click(get("conflict-keep"));
    await waitFor(() => expect(screen.queryByTestId("conflict")).toBeNull());
    expect((get("field-portion_mg") as HTMLInputElement).value).toBe("200");
    fireEvent.click(await find("review"));
    fireEvent.click(await find("apply"));
    await outcome("APPLIED");
    expect(backend.farm.feeders.get(`${FARM}/feeders/a-01`)?.config).toMatchObject({ portionMg: 200, dailyCapMg: 40_000 });
  });

  it("takes a stale etag from the server as the same conflict", async () => {
    await open(`/${FARM}/feeders/a-01`);
    backend.silent = true;
    backend.editAtFarm("a-01", (c) => {
      c.portionMg = 180;
    });
    type("field-portion_mg", "200");
    expect((await find("conflict")).textContent?.replace(/\u00a0/g, " ")).toContain("180 mg");
    expect(backend.farm.commands.size).toBe(0);
  });

  it("follows the farm in an untouched form", async () => {
    await open(`/${FARM}/feeders/a-01`);
    backend.editAtFarm("a-01", (c) => {
      c.portionMg = 180;
    });
    await waitFor(() => expect((get("field-portion_mg") as HTMLInputElement).value).toBe("180"), SLOW);
    expect(screen.queryByTestId("conflict")).toBeNull();
  });

  it("feeds once, and shows what fell", async () => {
    await open(`/${FARM}/feeders/a-01`);
    fireEvent.click(get("feed-now"));
    expect(((await find("feed-now-amount")) as HTMLInputElement).value).toBe("150");
    type("feed-now-amount", "100 mg");
    fireEvent.click(get("feed-now-confirm"));
    await waitFor(() => expect((get("feed-now") as HTMLButtonElement).disabled).toBe(true));
    await outcome("APPLIED");
    expect(get("outcome").textContent?.replace(/\u00a0/g, " ")).toContain("Fed 100 mg");
    await waitFor(() => expect((get("feed-now") as HTMLButtonElement).disabled).toBe(false));
    expect(backend.farm.commands.size).toBe(1);
  });

  it("asks what happened to a dose in doubt, and unlocks with the answer", async () => {
    await open(`/${FARM}/feeders/a-01`);
    backend.nextDose = "uncertain";
    fireEvent.click(get("feed-now"));
    fireEvent.click(await find("feed-now-confirm"));
    await outcome("UNCERTAIN");
    expect((get("feed-now") as HTMLButtonElement).disabled).toBe(true);
    fireEvent.click(await find("settle"));
    fireEvent.click(get("settle-confirm"));
    fireEvent.click(get("settle-not-fed"));
    fireEvent.click(get("settle-confirm"));
    expect(screen.getByText("Please say how you know.")).toBeTruthy();
    type("settle-note", "scale unchanged");
    fireEvent.click(get("settle-confirm"));
    await waitFor(() => expect(screen.queryByTestId("doubt")).toBeNull(), SLOW);
    expect((get("feed-now") as HTMLButtonElement).disabled).toBe(false);
    expect(get("outcome").textContent).toContain("Settled by Noa: not fed");
  });

  it("holds and resumes, and says before where that moves the next meal", async () => {
    const capabilities = backend.farm.feeders.get(`${FARM}/feeders/a-01`)?.capabilities;
    if (capabilities) capabilities.holdRestartsInterval = true;
    await open(`/${FARM}/feeders/a-01`);
    expect(screen.queryByTestId("resume-moves")).toBeNull();
    fireEvent.click(get("hold"));
    await outcome("APPLIED");
    expect((await find("resume-moves")).textContent?.replace(/\u00a0/g, " ")).toContain("the next meal comes 15 min later");
    fireEvent.click(await find("resume"));
    await waitFor(() => expect(get("outcome").dataset.kind).toBe("resume"));
    await outcome("APPLIED");
    await find("hold");
  });

  it("holds the whole farm after asking", async () => {
    await open(`/${FARM}`);
    fireEvent.click(get("hold-all"));
    const dialog = await find("hold-all-dialog");
    expect(dialog.textContent).toContain("not an emergency stop");
    expect(backend.farm.commands.size).toBe(0);
    fireEvent.click(get("hold-all-confirm"));
    expect((await find("hold-all-result")).textContent).toContain("20 held");
  });

  it("closes everything with the reason when the farm goes offline", async () => {
    await open(`/${FARM}/feeders/a-01`);
    backend.setPresence(PresenceState.OFFLINE);
    await waitFor(() => expect(get("presence").dataset.state).toBe("offline"), SLOW);
    expect(get("refusal").dataset.reason).toBe("AGENT_OFFLINE");
    expect(get("refusal").textContent).toContain("Stop or change it at the machine");
    for (const id of ["feed-now", "hold", "review", "field-portion_mg", "hold-all"]) {
      expect((get(id) as HTMLButtonElement).disabled, id).toBe(true);
    }
    expect(within(get("tank-a-01")).getByText("Not known")).toBeTruthy();
  });

  it("shows a refusal with its reason", async () => {
    await open(`/${FARM}/feeders/a-01`);
    backend.fault = { reason: "LOCAL_HOLD", code: Code.FailedPrecondition, times: 1 };
    fireEvent.click(get("hold"));
    await outcome("REFUSED");
    expect(get("refusal").dataset.reason).toBe("LOCAL_HOLD");
    expect(get("refusal").textContent).not.toContain("server's English");
  });

  it("is blind no longer than the stream, and resumes by itself", async () => {
    await open(`/${FARM}`);
    backend.breakStreams();
    backend.editAtFarm("a-02", (c) => {
      c.portionMg = 190;
    });
    await waitFor(() => expect(get("tank-a-02").textContent).toContain("190"), SLOW);
    expect(get("stream").dataset.state).toBe("live");
  });

  it("speaks Spanish", async () => {
    await open(`/${FARM}/feeders/b-01`);
    await setLanguage("es");
    await waitFor(() => expect(get("feed-now").textContent).toContain("Alimentar ya"));
    expect(document.documentElement.lang).toBe("es");
    expect(get("tank-b-01").textContent?.replace(/\u00a0/g, " ")).toContain("1,5 g");
  });

  it("lists what happened", async () => {
    await open(`/${FARM}/feeders/a-01`);
    fireEvent.click(get("history-doses"));
    expect((await screen.findAllByTestId("history-dose", undefined, SLOW)).length).toBe(6);
    fireEvent.click(get("history-versions"));
    expect((await find("history-version")).textContent).toContain("At the farm");
  });
});
