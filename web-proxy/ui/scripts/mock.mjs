// Serves the built page with a mock farm on 127.0.0.1:8090, for looking and trying.
import { join } from "node:path";
import { load, root } from "./load.mjs";

const port = Number(process.env.PORT ?? 8090);
const { module } = await load("/mock/server.ts");
await module.startMock(join(root, "dist"), port);
console.log(`http://127.0.0.1:${port}/farms/arava-north`);
