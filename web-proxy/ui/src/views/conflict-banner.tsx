// Someone else changed the settings meanwhile: what they were, what they are, what was typed.
import { create } from "@bufbuild/protobuf";
import { useEffect, useRef } from "preact/hooks";
import { Banner, Button } from "../components/basics";
import { FeederConfigSchema } from "../gen/pasamanos/v1/resources_pb";
import type { ConfigForm } from "../form/config-form";
import { changedPaths, describeField } from "../form/diff";
import { FIELD_PATHS } from "../form/fields";
import { t } from "../i18n";
import { fieldTitle } from "../i18n/words";

export function ConflictBanner({ form }: { form: ConfigForm }) {
  const empty = create(FeederConfigSchema);
  const base = form.feeder.value.config ?? empty;
  const current = form.conflict.value?.config ?? empty;
  const yours = form.read.value.config;
  const moved = new Set([...changedPaths(base, current), ...form.read.value.changed]);
  const paths = FIELD_PATHS.filter((p) => moved.has(p));
  const c = t.value.conflict;
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => place.current?.scrollIntoView({ block: "nearest" }), []);
  return (
    <div class="conflict" ref={place}>
      <Banner
        tone="warn"
        role="alert"
        title={c.title}
        testid="conflict"
        actions={
          <>
            <Button kind="primary" data-testid="conflict-keep" onClick={() => form.rebase()}>
              {c.keep}
            </Button>
            <Button data-testid="conflict-drop" onClick={() => form.discard()}>
              {c.drop}
            </Button>
          </>
        }
      >
        <p>{c.text}</p>
        <table class="diff">
          <thead>
            <tr>
              <th scope="col">{t.value.config.setting}</th>
              <th scope="col">{c.base}</th>
              <th scope="col">{c.current}</th>
              <th scope="col">{c.yours}</th>
            </tr>
          </thead>
          <tbody>
            {paths.map((path) => (
              <tr key={path}>
                <th scope="row">{fieldTitle(path)}</th>
                <td>{describeField(base, path)}</td>
                <td class="new">{describeField(current, path)}</td>
                <td class="new">{describeField(yours, path)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Banner>
    </div>
  );
}
