// The build: plain files for a page whose CSP allows nothing inline and nothing from elsewhere.
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** Leaves protobuf's JSON codec out of the built page, which speaks binary only. */
const withoutJson = (): Plugin => ({
  name: "without-protobuf-json",
  apply: "build",
  enforce: "pre",
  resolveId(source, importer) {
    const codec = /^\.\/(to|from)-json\.js$/.test(source) && importer?.includes("@bufbuild/protobuf/");
    return codec ? fileURLToPath(new URL("src/no-json.ts", import.meta.url)) : undefined;
  },
});

export default defineConfig({
  plugins: [withoutJson()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
  },
  test: {
    environment: "happy-dom",
    include: ["test/**/*.test.{ts,tsx}"],
    setupFiles: ["test/setup.ts"],
    restoreMocks: true,
  },
});
