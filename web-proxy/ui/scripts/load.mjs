// Loads a TypeScript module of this package in Node, through Vite.
import { createServer } from "vite";

export const root = new URL("..", import.meta.url).pathname;

export async function load(path) {
  const vite = await createServer({
    root,
    appType: "custom",
    logLevel: "error",
    server: { middlewareMode: true, hmr: false, ws: false, watch: null },
  });
  const module = await vite.ssrLoadModule(path);
  return { module, close: () => vite.close() };
}
