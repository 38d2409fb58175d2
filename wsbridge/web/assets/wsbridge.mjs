import "./wsbridge.js"; export const Channel = globalThis.wsbridge.Channel;
