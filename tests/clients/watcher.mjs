// What @kubernetes/client-node sees: it makes a Secret and an Instance, follows Secrets by an informer, and cleans up.
// Run by test_others with KUBECONFIG set; says what it saw as one line of JSON.
import {
  CoreV1Api, CustomObjectsApi, KubeConfig, PatchStrategy, VersionApi, makeInformer, setHeaderOptions,
} from '@kubernetes/client-node';

const config = new KubeConfig();
config.loadFromDefault();
const [core, custom, version] = [CoreV1Api, CustomObjectsApi, VersionApi].map((api) => config.makeApiClient(api));
const namespace = 'acme--lab';
const ours = { group: 'bessemer.dev', version: 'v1alpha1', namespace, plural: 'instances' };

const seen = [];
let settled;
const gone = new Promise((resolve) => { settled = resolve; });
const informer = makeInformer(config, `/api/v1/namespaces/${namespace}/secrets`, () => core.listNamespacedSecret({ namespace }));
for (const what of ['add', 'update', 'delete']) {
  informer.on(what, (secret) => {
    seen.push([what, secret.metadata.name, secret.data?.a ?? null]);
    if (what === 'delete') settled();
  });
}
let stopping = false; // to stop is an error in its words
informer.on('error', (error) => { if (!stopping) { console.error(error); process.exit(1); } });
await informer.start();
const until = async (length) => { while (seen.length < length) await new Promise((r) => setTimeout(r, 10)); };

await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'node' }, stringData: { a: 'one' } } });
await until(1);
const merge = setHeaderOptions('Content-Type', PatchStrategy.StrategicMergePatch);
await core.patchNamespacedSecret({ namespace, name: 'node', body: { stringData: { a: 'two' } } }, merge);
await until(2);
await core.deleteNamespacedSecret({ namespace, name: 'node' });
await gone;
stopping = true;
await informer.stop();

const body = { apiVersion: 'bessemer.dev/v1alpha1', kind: 'Instance', metadata: { name: 'node' }, spec: { flavor: 's', image: 'm' } };
const made = await custom.createNamespacedCustomObject({ ...ours, body });
const patch = [{ op: 'replace', path: '/spec/running', value: false }];
const changed = await custom.patchNamespacedCustomObject({ ...ours, name: 'node', body: patch });
await custom.deleteNamespacedCustomObject({ ...ours, name: 'node' });
const minor = (await version.getCode()).minor;
console.log(JSON.stringify({ seen, minor, made: made.kind, running: changed.spec.running }));
process.exit(0);
