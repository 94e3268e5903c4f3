// The metadata of a reason, ready for a sentence: amounts, readings and names in the page's language.
import { ReadingKind } from "../gen/pasamanos/v1/resources_pb";
import { Reason } from "../gen/pasamanos/v1/reasons_pb";
import { formatAmount, formatReading } from "../format/amount";
import { formatDuration } from "../format/time";

/** The name of a reason, without the enum's prefix. */
export type ReasonName = keyof typeof Reason;

/** Whether a server's reason is one that this page knows. */
export function isReason(name: string): name is ReasonName {
  return name !== "UNSPECIFIED" && typeof Reason[name as ReasonName] === "number";
}

/** Turns a resource's name into what the farm calls it. */
export type Naming = (resource: string) => string;

/** The last part of a resource's name. */
export const slugOf = (resource: string): string => resource.slice(resource.lastIndexOf("/") + 1);

/** What a sentence may ask for; each absent if the server did not say it. */
export class Facts {
  constructor(
    private readonly metadata: Readonly<Record<string, string>>,
    private readonly naming: Naming = slugOf,
  ) {}

  text(key: string): string | undefined {
    return this.metadata[key] || undefined;
  }

  name(key: string): string | undefined {
    const value = this.text(key);
    return value === undefined ? undefined : this.naming(value);
  }

  amount(key: string): string | undefined {
    const value = this.integer(key);
    return value === undefined ? undefined : formatAmount(value);
  }

  duration(key: string): string | undefined {
    const value = this.integer(key);
    return value === undefined ? undefined : formatDuration(value);
  }

  kind(): ReadingKind | undefined {
    const name = (this.metadata.kind ?? "").replace(/^READING_KIND_/, "");
    const kind = ReadingKind[name as keyof typeof ReadingKind];
    return kind === undefined || kind === ReadingKind.UNSPECIFIED ? undefined : kind;
  }

  reading(key: string): string | undefined {
    const kind = this.kind();
    const value = this.integer(key);
    return kind === undefined || value === undefined ? undefined : formatReading(kind, value, true);
  }

  private integer(key: string): number | undefined {
    const text = this.text(key);
    return text !== undefined && /^-?\d{1,15}$/.test(text) ? Number(text) : undefined;
  }
}

/** One reason's sentence. */
export type ReasonText = (f: Facts) => string;
