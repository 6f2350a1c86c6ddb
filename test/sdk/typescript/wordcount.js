// Counts the words of a text file with Beam's TypeScript SDK on a job server: Beam's own example counts four lines
// that it holds itself, so this one takes a whole book through the same transforms.
//
//    node wordcount.js HOST:PORT INPUT OUTPUT
const fs = require("fs");
const beam = require("apache-beam");
const { PortableRunner } = require("apache-beam/runners/portable_runner/runner");
const { requireForSerialization } = require("apache-beam/serialization");
const { countPerElement } = require("apache-beam/transforms/group_and_combine");

const [endpoint, input, output] = process.argv.slice(2);

function* lines(path) {
  yield* fs.readFileSync(path, "utf8").split("\n");
}

function* words(line) {
  for (const word of line.split(/[^A-Za-z]+/)) {
    if (word) yield word;
  }
}

// The worker is this very process (LOOPBACK), so it may write the file that main emptied.
function write(count) {
  fs.appendFileSync(output, `${count.element}: ${count.count}\n`);
}

// Functions travel by name: the worker finds them under the module's.
requireForSerialization("wordcount", { lines, words, write });

async function main() {
  fs.writeFileSync(output, "");
  const runner = new PortableRunner({ jobEndpoint: endpoint, environmentType: "LOOPBACK" });
  await runner.run((root) =>
    root
      .apply(beam.create([input]))
      .flatMap(lines)
      .flatMap(words)
      .apply(countPerElement())
      .map(write)
  );
}

// The SDK keeps sockets open after the job has ended, so both ends are said outright.
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  }
);
