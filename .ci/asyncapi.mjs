// Says what is wrong with an AsyncAPI document. The parser is installed beside the copy of
// this file that runs; see "run".
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

// A newer version of AsyncAPI is no reason to write one that fewer programs read.
const ignored = new Set(['asyncapi-latest-version']);

const found = await new Parser().validate(readFileSync(process.argv[2], 'utf8'));
const wrong = found.filter((d) => !ignored.has(d.code));
for (const d of wrong) console.error(`${d.path.join('/')}: ${d.message} (${d.code})`);
process.exitCode = wrong.length ? 1 : 0;
