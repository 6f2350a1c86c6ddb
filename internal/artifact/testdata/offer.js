// Stages with the TypeScript SDK's own client: offer.js ENDPOINT TOKEN, run where apache-beam is installed. Asked for by
// real_test.go.
const { createRequire } = require("module");
const here = createRequire(process.cwd() + "/");
const beam = here.resolve("apache-beam");
here(beam); // the package's parts can only be required after the whole
const sdk = createRequire(beam);
const { offerArtifacts } = sdk("./runners/artifacts");
const { ArtifactStagingServiceClient } = sdk("./proto/beam_artifact_api.client");
const { GrpcTransport } = sdk("@protobuf-ts/grpc-transport");
const { ChannelCredentials } = sdk("@grpc/grpc-js");

const [endpoint, token] = process.argv.slice(2);
process.exitCode = 2; // for a promise that never settles: node would end well, and a pipeline with live workers hang
const transport = new GrpcTransport({ host: endpoint, channelCredentials: ChannelCredentials.createInsecure() });
offerArtifacts(new ArtifactStagingServiceClient(transport), token, "/").then(
  () => process.exit(0),
  (err) => {
    console.error(err.message);
    process.exit(1);
  },
);
