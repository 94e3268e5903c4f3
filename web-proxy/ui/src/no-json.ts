// Stands in for protobuf's JSON codec in the built page (vite.config.ts): the page speaks binary
// only, and the codec would be a tenth of its weight.

const unused = (): never => {
  throw new Error("this page was built without protobuf JSON");
};

export const toJson = unused;
export const toJsonString = unused;
export const enumToJson = unused;
export const fromJson = unused;
export const fromJsonString = unused;
export const mergeFromJson = unused;
export const mergeFromJsonString = unused;
export const enumFromJson = unused;
export const isEnumJson = unused;
