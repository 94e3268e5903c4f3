// Changes that nobody ordered from here: someone at the farm changed a feeder's settings. Found by
// the version number on the watch, told with old and new from the version list.
import { signal } from "@preact/signals";
import { ConfigAuthor, type ConfigVersion, type Feeder } from "../gen/pasamanos/v1/resources_pb";
import type { Api } from "../api/transport";
import type { ByName } from "./farm";

export interface Notice {
  readonly id: string;
  readonly feeder: string;
  readonly version: ConfigVersion;
  readonly previous: ConfigVersion;
}

const MOST = 20;

export class Notices {
  readonly list = signal<readonly Notice[]>([]);
  private readonly seen = new Map<string, bigint>();
  private queue: Promise<void> = Promise.resolve();

  constructor(private readonly api: Api) {}

  /** Compares the versions with those seen before; asks only for feeders that moved. */
  observe(feeders: ByName<Feeder>): void {
    for (const { value: feeder } of feeders.values()) {
      const before = this.seen.get(feeder.name);
      if (before === feeder.configVersion) continue;
      this.seen.set(feeder.name, feeder.configVersion);
      // The first sight of a feeder, and its first version, are no change.
      if (before === undefined || before === 0n || feeder.configVersion < before) continue;
      this.queue = this.queue.then(() => this.ask(feeder.name, before));
    }
  }

  dismiss(id: string): void {
    this.list.value = this.list.peek().filter((n) => n.id !== id);
  }

  private async ask(feeder: string, after: bigint): Promise<void> {
    try {
      const { versions } = await this.api.feeders.listConfigVersions({ parent: feeder, pageSize: 10 });
      const news: Notice[] = [];
      for (const version of versions) {
        const previous = versions.find((v) => v.number === version.number - 1n);
        if (version.number <= after || version.author !== ConfigAuthor.FARM || !previous) continue;
        news.push({ id: `${feeder}@${version.number}`, feeder, version, previous });
      }
      const known = new Set(this.list.peek().map((n) => n.id));
      const fresh = news.filter((n) => !known.has(n.id));
      if (fresh.length > 0) this.list.value = [...fresh, ...this.list.peek()].slice(0, MOST);
    } catch {
      // The new settings are on the screen anyway; the history tab has who made them.
    }
  }
}
