// What an order means for the rest of the day, as the server reckons it.
import { Banner } from "../components/basics";
import { Moment } from "../components/moment";
import { type Preview, PreviewWarning } from "../gen/pasamanos/v1/resources_pb";
import { formatNumber, formatTotal } from "../format/amount";
import { timestampMs } from "../format/time";
import { t } from "../i18n";

export function PreviewFacts({ preview, testid }: { preview: Preview; testid: string }) {
  const p = t.value.preview;
  const next = timestampMs(preview.nextDoseTime);
  const facts: [string, preact.ComponentChildren][] = [];
  if (preview.mealsLeftToday !== undefined) facts.push([p.mealsLeft, formatNumber(preview.mealsLeftToday)]);
  if (preview.plannedLeftMg !== undefined) facts.push([p.plannedLeft, formatTotal(preview.plannedLeftMg)]);
  if (preview.capLeftMg !== undefined) facts.push([p.capLeft, formatTotal(preview.capLeftMg)]);
  if (preview.mealsThatWillBeSkipped) facts.push([p.skipped, formatNumber(preview.mealsThatWillBeSkipped)]);
  if (next !== undefined) facts.push([p.next, <Moment ms={next} />]);
  return (
    <div class="preview" data-testid={testid}>
      {facts.length > 0 && (
        <dl class="facts facts-boxed">
          {facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      )}
      {preview.warnings.map((warning) => {
        const text = p.warnings[PreviewWarning[warning] as keyof typeof p.warnings];
        return (
          text && (
            <Banner key={warning} tone="warn">
              {text}
            </Banner>
          )
        );
      })}
    </div>
  );
}
