// The one way to the server: grpc-web, binary, same origin.
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { FeederService } from "../gen/pasamanos/v1/feeder_service_pb";
import { StatusService } from "../gen/pasamanos/v1/status_service_pb";

export interface Api {
  readonly feeders: Client<typeof FeederService>;
  readonly status: Client<typeof StatusService>;
}

/** The page's transport. The session lives in a cookie that scripts never see. */
export const browserTransport = (): Transport => createGrpcWebTransport({ baseUrl: location.origin });

export function createApi(transport: Transport): Api {
  return {
    feeders: createClient(FeederService, transport),
    status: createClient(StatusService, transport),
  };
}

/** How long a read may take before the page asks again. */
export const READ_TIMEOUT_MS = 8_000;
