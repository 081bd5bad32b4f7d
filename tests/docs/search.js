// Ask the site's own search, which runs in a worker: node search.js SITE QUERY... prints {query: [locations]}.
const fs = require("fs");
const [site, ...queries] = process.argv.slice(2);
const folder = `${site}/assets/javascripts/workers/`;
const worker = fs.readdirSync(folder).find((name) => name.startsWith("search."));
const index = JSON.parse(fs.readFileSync(`${site}/search.json`, "utf8"));
const found = {};
let next = 0;
globalThis.self = {
  postMessage(message) {
    if (message.type === 3) found[queries[next++]] = message.data.items.map((item) => index.items[item.id].location);
    if (message.type === 4) throw new Error("the search failed");
    if (next < queries.length) setImmediate(() => self.onmessage({ data: { type: 2, data: { input: queries[next], filter: { input: "", value: { type: "operator", data: { operator: "and", operands: [] } } } } } }));
    else console.log(JSON.stringify(found));
  },
};
eval(fs.readFileSync(folder + worker, "utf8"));
self.onmessage({ data: { type: 0, data: index } });
