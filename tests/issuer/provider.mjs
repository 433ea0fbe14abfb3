// An OpenID Connect issuer for the tests. Its one argument is a file of settings:
// {port, clients, people: {NAME: claims}, keys: [JWK], seconds}. It says "up" once it listens.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , file, modules] = process.argv;
const resolved = createRequire(`${modules}/`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(resolved));
const settings = JSON.parse(readFileSync(file, 'utf8'));
const issuer = `http://127.0.0.1:${settings.port}`;

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: { keys: settings.keys },
  cookies: { keys: ['one key for the cookies of tests'] },
  features: {
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  claims: { openid: ['sub', 'sid'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'offline_access', 'groups', 'profile', 'email'],
  conformIdTokenClaims: false,
  // Its own dispatcher refuses loopback, where the tests' api listens.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  pkce: { required: () => true },
  ttl: { IdToken: settings.seconds, AccessToken: 600, Grant: 3600, Session: 3600, Interaction: 600, DeviceCode: 600, RefreshToken: 3600 },
  issueRefreshToken: async (ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  async findAccount(ctx, id) {
    return { accountId: id, claims: async () => ({ sub: id, preferred_username: id, ...settings.people[id] }) };
  },
});
provider.on('backchannel.error', (ctx, error) => console.error('back channel:', error));
provider.on('server_error', (ctx, error) => console.error(error));
// It refuses to speak http beyond loopback; the tests stay there.
provider.listen(settings.port, '127.0.0.1', () => console.log('up'));
