/** wsbridge.js as a module: `import { Channel } from "/wsbridge.mjs"`. */
import "./wsbridge.js";

export const { Channel } = globalThis.wsbridge;
