// Serves local-aws-sqs on 127.0.0.1 at the port given, until it is told to stop.
import { createRequire } from "node:module";

const require = createRequire(process.argv[3] + "/");
const { createSqsServer } = require("local-aws-sqs");
await createSqsServer({ hostname: "127.0.0.1", port: Number(process.argv[2]) });
