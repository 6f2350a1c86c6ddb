// Runs the primitives suite of Beam's TypeScript SDK on a job server. Its published package has the suite as a function
// of the runner, written for mocha; what it uses of mocha is here, since mocha would also run what else is in the file.
//
//    node suite.js SDK HOST:PORT SECONDS RESULTS [PATTERN]
//
// SDK is the folder with node_modules, RESULTS gets a JSON list of {test, error, millis}, of the
// tests whose name matches PATTERN.
const fs = require("fs");
const path = require("path");

const [sdk, endpoint, seconds, output, pattern = ""] = process.argv.slice(2);
const beam = path.join(sdk, "node_modules", "apache-beam", "dist");

const tests = [];
const titles = [];
let collecting = false;

global.describe = function (title, body) {
  if (!collecting) return;
  titles.push(title);
  body.call({});
  titles.pop();
};
global.it = function (title, body) {
  if (collecting) tests.push({ test: [...titles, title].join(": "), body });
  return { timeout() {} };
};
// They start and stop a server for a part of the file that is not the suite.
global.before = global.after = global.beforeEach = global.afterEach = function () {};

// The package's modules need one another in a circle, which only its index unties.
require(path.join(beam, "src", "apache_beam", "index.js"));
const { PortableRunner } = require(path.join(beam, "src", "apache_beam", "runners", "portable_runner", "runner.js"));
const { suite } = require(path.join(beam, "test", "primitives_test.js"));

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it took longer than ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function main() {
  collecting = true;
  suite(new PortableRunner({ jobEndpoint: endpoint, environmentType: "LOOPBACK" }));
  const results = [];
  for (const { test, body } of tests.filter(({ test }) => new RegExp(pattern).test(test))) {
    const start = Date.now();
    let error = "";
    try {
      await within(body.call({}));
    } catch (e) {
      error = String((e && e.stack) || e) || "an error without a text";
    }
    results.push({ test, error, millis: Date.now() - start });
    console.log(error ? `failed: ${test}\n${error}` : `passed: ${test}`);
  }
  fs.writeFileSync(output, JSON.stringify(results));
  process.exit(0); // connections of a test that took too long would hold the process
}

main();
