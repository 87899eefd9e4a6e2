// An application with the Node.js library etcd3. lines.py says what it prints.

const { Etcd3 } = require(process.env.FAILOVER_LIBRARY);

const TIMEOUT_MS = 5000, PERIOD_MS = 50, LEASE_SECONDS = 5;
const [addresses, prefix] = process.argv.slice(2);

const client = new Etcd3({
  hosts: addresses.split(',').map(address => `http://${address}`),
  defaultCallOptions: call => (call.isStream ? {} : { deadline: Date.now() + TIMEOUT_MS }),
});

function say(what) {
  process.stdout.write(`@ ${(Date.now() / 1000).toFixed(3)} ${what}\n`);
}

function why(err) {
  return String(err).replace(/\n/g, ' ').slice(0, 200);
}

async function repeat(name, call) {
  for (;;) {
    const begun = Date.now();
    try {
      await call();
      say(`${name} ok`);
    } catch (err) {
      say(`${name} failed: ${why(err)}`);
    }
    await new Promise(done => setTimeout(done, Math.max(0, PERIOD_MS - (Date.now() - begun))));
  }
}

async function main() {
  const lease = client.lease(LEASE_SECONDS);
  lease.on('lost', err => say(`lease told: ${why(err)}`));
  say(`lease ${await lease.grant()}`);
  // It is told `disconnected` too, but then the library reconnects by itself.
  const watcher = await client.watch().key(`${prefix}watched`).create();
  watcher.on('put', kv => say(`event ${Number(kv.value)}`));
  watcher.on('error', err => say(`watch told: ${why(err)}`));
  watcher.on('end', () => say('watch told: end'));
  let number = 0;
  repeat('put', () => client.put(`${prefix}own`).value(String(number++)));
  repeat('get', () => client.get(`${prefix}own`).string());
}

main();
