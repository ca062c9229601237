// Validates the AsyncAPI document named on the command line; prints what is wrong, exits 1 on errors.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const errors = diagnostics.filter(({ severity }) => severity === 0);
for (const { path, message } of errors) console.log(`${path.join("/")}: ${message}`);
process.exit(errors.length ? 1 : 0);
