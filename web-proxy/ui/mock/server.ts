// The mock backend as a server: the built page from dist with the production CSP, grpc-web beside
// it, and switches under /mock/ for faults. Development only.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { extname, join } from "node:path";
import { Readable } from "node:stream";
import { Code, createConnectRouter } from "@connectrpc/connect";
import { createFetchHandler } from "@connectrpc/connect/protocol";
import { LinkState, PresenceState } from "../src/gen/pasamanos/v1/resources_pb";
import { MockBackend } from "./backend";

const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webmanifest": "application/manifest+json",
};

export function startMock(dist: string, port: number, backend = new MockBackend()): Promise<Server> {
  const router = createConnectRouter({ grpcWeb: true, connect: false, grpc: false });
  backend.routes(router);
  const handlers = new Map(router.handlers.map((h) => [h.requestPath, createFetchHandler(h)]));
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    const handler = handlers.get(url.pathname);
    if (handler) void rpc(handler, url, request, response);
    else if (url.pathname.startsWith("/mock/")) control(backend, url, response);
    else file(dist, url.pathname, response);
  });
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

async function rpc(
  handler: (request: Request) => Promise<Response>,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) if (typeof value === "string") headers.set(name, value);
  const answer = await handler(new Request(url, { method: "POST", headers, body: Buffer.concat(chunks), signal: gone.signal }));
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.flushHeaders();
  if (!answer.body) {
    response.end();
    return;
  }
  Readable.fromWeb(answer.body as never)
    .on("error", () => response.destroy())
    .pipe(response);
}

/** /mock/presence?state=OFFLINE, /mock/fault?reason=AGENT_MOVING&code=UNAVAILABLE&times=2&accept=1, … */
function control(backend: MockBackend, url: URL, response: ServerResponse): void {
  const get = (name: string, otherwise = "") => url.searchParams.get(name) ?? otherwise;
  switch (url.pathname.slice(6)) {
    case "presence":
      backend.setPresence(PresenceState[get("state") as keyof typeof PresenceState]);
      break;
    case "link":
      backend.setLink(get("robot"), LinkState[get("state") as keyof typeof LinkState]);
      break;
    case "fault":
      backend.fault = {
        reason: get("reason"),
        code: Code[get("code", "Unavailable") as keyof typeof Code],
        times: Number(get("times", "1")),
        accept: get("accept") === "1",
      };
      break;
    case "dose":
      backend.nextDose = get("outcome", "applied") as MockBackend["nextDose"];
      break;
    case "delay":
      backend.delayMs = Number(get("ms", "900"));
      break;
    case "edit":
      backend.editAtFarm(get("feeder"), (c) => {
        c.portionMg = Number(get("portion"));
      });
      break;
    case "silent":
      backend.silent = get("on", "1") === "1";
      break;
    case "break":
      backend.breakStreams();
      break;
    case "gap":
      backend.skip();
      backend.change({});
      break;
    default:
      response.writeHead(404).end();
      return;
  }
  response.writeHead(204).end();
}

function file(dist: string, pathname: string, response: ServerResponse): void {
  let path = join(dist, pathname);
  if (!path.startsWith(dist) || !existsSync(path) || !statSync(path).isFile()) {
    if (pathname.startsWith("/assets/")) {
      response.writeHead(404).end();
      return;
    }
    path = join(dist, "index.html");
  }
  response.writeHead(200, {
    "content-type": TYPES[extname(path)] ?? "application/octet-stream",
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
  });
  createReadStream(path).pipe(response);
}
