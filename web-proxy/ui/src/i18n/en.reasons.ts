// English: a sentence for every reason, from its metadata; it says what to do next. Never the server's English.
import type { ReasonName, ReasonText } from "./facts";

const at = (name: string | undefined) => (name === undefined ? "" : ` (${name})`);

export const reasons: Partial<Record<ReasonName, ReasonText>> = {
  AGENT_OFFLINE: (f) => {
    const since = f.duration("since_ms");
    return since === undefined
      ? "The farm PC is not connected. Nothing was sent. Stop or change it at the machine, or wait until the farm is online."
      : `The farm PC has been silent for ${since}. Nothing was sent. Stop or change it at the machine, or wait until the farm is online.`;
  },
  AGENT_MOVING: () => "The farm PC is changing its connection. Nothing was sent. Try again in a few seconds.",
  AGENT_LOST: () => "The connection to the farm PC was lost before it could answer. It may have run. Look at the tank.",
  LEASE_STORE_UNREACHABLE: () =>
    "The server cannot tell whether the farm is connected. Nothing was sent. Try again in a minute; to stop a feeder now, stop it at the machine.",
  DATABASE_UNREACHABLE: () => "The server cannot reach its records. Nothing was sent. Try again in a minute.",
  ACCEPTANCE_UNKNOWN: () => "The server cannot say yet whether it took this order. Wait: this page keeps asking.",
  INVALID_FIELD: () => "Something in the order is not allowed. The field is marked.",
  REQUEST_ID_REQUIRED: () => "This page is out of date. Reload it and try again.",
  REQUEST_ID_REUSED: () => "This order was already used for something else. Start again.",
  ETAG_REQUIRED: () => "This page is out of date. Reload it and try again.",
  ETAG_MISMATCH: () => "The settings were changed while you were editing. Nothing was sent. Compare and decide.",
  CONFIG_IN_FLIGHT: () => "Another change of this feeder is still on its way. Wait for it to finish.",
  CHANGED_AT_FARM: () => "The settings were changed at the farm just before. Nothing was written. Compare and decide.",
  CONFIG_MIXED: () =>
    "The PLC took only part of the change. The feeder is held until the settings are confirmed. Check them and apply again.",
  REVERTED_BY_PLC: () => "The PLC took the value and put the old one back. Check at the farm why it refuses.",
  PLC_UNREACHABLE: (f) => `The farm PC cannot reach the PLC${at(f.name("robot"))}. Nothing was sent to it. Check its power and network.`,
  FEEDER_HELD: () => "The feeder is held. Resume it first.",
  FEEDER_OFF: () => "The feeder is off. Set its mode to automatic or manual first.",
  FEEDER_FAULT: (f) => {
    const code = f.text("fault_code");
    return code === undefined
      ? "The feeder has a fault. Clear it first."
      : `The feeder has fault ${code}. Clear it first.`;
  },
  LOCAL_HOLD: () => "The feeder was stopped at the farm. It can only be released there.",
  INTERLOCK: (f) => {
    const value = f.reading("value");
    const limit = f.reading("limit");
    if (value === undefined && limit !== undefined) return `The water reading is missing. Feeding needs it (limit ${limit}).`;
    if (value === undefined) return "A water reading forbids feeding, or is missing. Check the sensor and the tank.";
    return limit === undefined
      ? `The water forbids feeding: ${value}. Check the tank.`
      : `The water forbids feeding: ${value}, limit ${limit}. Check the tank.`;
  },
  DAILY_CAP: (f) => {
    const left = f.amount("left_mg");
    return left === undefined
      ? "Today’s cap would be exceeded."
      : `Today’s cap would be exceeded: ${left} left. Feed less, or raise the cap.`;
  },
  ENVELOPE: (f) => {
    const left = f.amount("left_mg");
    return left === undefined
      ? "The farm’s own 24-hour limit would be exceeded."
      : `The farm’s own 24-hour limit would be exceeded: ${left} left.`;
  },
  NOT_ENFORCED: () => "Nothing at this farm makes that limit work, so it cannot be set.",
  READ_ONLY: () => "This farm lets the page look, not change. Change it at the machine.",
  BUSY_DOSING: () => "The feeder was feeding all the while. Nothing was changed. Try again after the meal.",
  READBACK_NOT_PROVEN: (f) =>
    `The PLC’s answer could not be shown to be fresh${at(f.name("robot"))}. The change may be in force. Check at the machine.`,
  REVERTED_AT_FARM: () => "A change at the farm brought back earlier settings. Compare the two versions.",
  PLC_CLOCK_WRONG: (f) => `The PLC’s clock does not run or has jumped${at(f.name("robot"))}. It must be set at the farm.`,
  PROTOCOL_TOO_OLD: () => "The program on the farm PC is too old for this server. Update it.",
  DOSE_UNSETTLED: (f) =>
    `An earlier feeding${at(f.name("robot"))} is still in doubt. Say what happened to it first; until then nothing more is fed by order.`,
  SUPERSEDED_BY_HOLD: () => "A hold overtook it. Nothing was fed or changed.",
  SESSION_SUPERSEDED: () => "Another connection of the same farm PC took over.",
  UNKNOWN_AGENT: (f) => `The server does not know this farm PC${at(f.name("agent"))}. It must be added first.`,
  DUPLICATE_AGENT: (f) => `Two machines use the identity of one farm PC${at(f.name("agent"))}. Stop one of them.`,
  NOT_FOUND: () => "That does not exist, or is not yours to see.",
  OUTCOME_PENDING: () => "The order is on its way. The outcome is not known yet.",
  START_LIMIT: () => "It could not start in time. It did not run, and never will.",
  NOT_IN_DOUBT: () => "There is nothing to settle any more.",
  HELD: () => "It ended early because the feeder was held.",
  PLC_REFUSED: (f) => {
    const why = f.text("plc_reason");
    return why === undefined ? "The PLC ended or refused it by itself." : `The PLC ended or refused it by itself: ${why}.`;
  },
  PLC_MEMORY_LOST: (f) => `The PLC lost its memory meanwhile${at(f.name("robot"))}. Check the feeder at the farm.`,
  JOURNAL_NOT_WHOLE: (f) => {
    const robot = f.name("robot");
    return robot === undefined
      ? "The farm PC lost part of its records and cannot tell. Look at the tank and say what happened."
      : `The farm PC lost part of its records: ${robot} gave doses that nobody remembers. Look at the tanks, then reset the envelope at the farm PC.`;
  },
  OVERLOADED: () => "The server is busy. Nothing was sent. Try again in a few seconds.",
  CONFIG_UNKNOWN: () => "The settings of this feeder are not known yet: its PLC was never read.",
  INTERNAL: (f) => {
    const incident = f.text("incident");
    return incident === undefined
      ? "The server made a mistake. Try again; if it stays, tell support."
      : `The server made a mistake. Tell support this number: ${incident}.`;
  },
  SERVER_STOPPING: () => "The server is being restarted. Try again in a few seconds.",
  NOT_OFFERED: () => "This feeder cannot do that.",
  FAULT_CHANGED: () => "The feeder shows another fault now. Look at it again.",
};
