// Request ids: a UUID that this page makes before it sends; it becomes the command's name.

/** A new UUID (version 4). `crypto.randomUUID` exists only on secure pages; a farm's PC may serve plain HTTP. */
export function newRequestId(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The name of the command that a request id makes. */
export const commandName = (farm: string, requestId: string): string => `${farm}/commands/${requestId.toLowerCase()}`;
