/**
 * The client of Strongroom for Node.
 *
 *     import { Strongroom } from "strongroom";
 *
 *     const strongroom = new Strongroom({ url: "http://127.0.0.1:8080", apiKey: process.env.STRONGROOM_API_KEY });
 *     const { data } = await strongroom.secrets.getSecret({ name: "prod/db" });
 *     for await (const page of pages(strongroom.models.listModels, { managerId: "default" })) …
 *
 * Methods and messages are those of the protos in `strongroom.*.v1`. Failures are the classes of `errors.ts`. Every call
 * has a deadline (`timeoutMs` of its options; 30 s, an hour for streams). A call that the rate limit refused is made again
 * when the server says so; calls that read are, with growing random waits, while the server is away. After several calls
 * in a row that reached nobody the next ones fail at once with `CircuitOpen`.
 */

import type { DescService } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Breaker } from "./breaker.ts";
import { InvalidArgument, Unauthenticated } from "./errors.ts";
import { AccessService } from "./gen/strongroom/auth/v1/access_pb.js";
import { ApiKeyService } from "./gen/strongroom/auth/v1/api_keys_pb.js";
import { AuditService } from "./gen/strongroom/auth/v1/audit_pb.js";
import { InfoService } from "./gen/strongroom/auth/v1/info_pb.js";
import { SessionService } from "./gen/strongroom/auth/v1/sessions_pb.js";
import { TokenService } from "./gen/strongroom/auth/v1/tokens_pb.js";
import { UsageService } from "./gen/strongroom/auth/v1/usage_pb.js";
import { UserService } from "./gen/strongroom/auth/v1/users_pb.js";
import { ArtifactService } from "./gen/strongroom/models/v1/artifacts_pb.js";
import { CatalogService } from "./gen/strongroom/models/v1/catalog_pb.js";
import { ConfigService } from "./gen/strongroom/models/v1/configs_pb.js";
import { FileService } from "./gen/strongroom/models/v1/files_pb.js";
import { JobService } from "./gen/strongroom/models/v1/jobs_pb.js";
import { MaintenanceService } from "./gen/strongroom/models/v1/maintenance_pb.js";
import { ManagerService } from "./gen/strongroom/models/v1/managers_pb.js";
import { MlArtifactService } from "./gen/strongroom/models/v1/ml_artifacts_pb.js";
import { MlService } from "./gen/strongroom/models/v1/ml_pb.js";
import { type Version, ModelService } from "./gen/strongroom/models/v1/models_pb.js";
import { RotationService } from "./gen/strongroom/models/v1/rotation_pb.js";
import { StoreService } from "./gen/strongroom/models/v1/stores_pb.js";
import { SystemService } from "./gen/strongroom/models/v1/system_pb.js";
import { ProviderService } from "./gen/strongroom/secrets/v1/providers_pb.js";
import { RootKeyService } from "./gen/strongroom/secrets/v1/root_key_pb.js";
import { SecretRotationService } from "./gen/strongroom/secrets/v1/rotations_pb.js";
import { SecretService } from "./gen/strongroom/secrets/v1/secrets_pb.js";
import { patient, type Wait } from "./patience.ts";

export * from "./errors.ts";

const DEFAULT_URL = "http://127.0.0.1:8080";
const PIECE = 1 << 20;

/** Where a Strongroom is, and who calls. */
export interface Options {
  /** `http://HOST:PORT` or `https://HOST[:PORT]`. */
  url?: string | undefined;
  /** An API key; or */
  apiKey?: string | undefined;
  /** an access token, or what gives one that is good at the time. */
  token?: string | (() => string | Promise<string>) | undefined;
  /** A certificate authority to trust besides those of the system, as PEM. */
  ca?: string | Uint8Array | undefined;
  /** Waits between attempts. */
  wait?: Wait;
}

/** A file of a version. */
export interface FilePlace {
  model: string;
  version: string;
  path: string;
  manager?: string;
  /** Of a version that is protected by one. */
  accessCode?: string;
}

/** A Strongroom, seen by one caller. */
export class Strongroom {
  readonly access: Client<typeof AccessService>;
  readonly artifacts: Client<typeof ArtifactService>;
  readonly audit: Client<typeof AuditService>;
  readonly catalog: Client<typeof CatalogService>;
  readonly configs: Client<typeof ConfigService>;
  readonly files: Client<typeof FileService>;
  readonly info: Client<typeof InfoService>;
  readonly jobs: Client<typeof JobService>;
  readonly keys: Client<typeof ApiKeyService>;
  readonly maintenance: Client<typeof MaintenanceService>;
  readonly managers: Client<typeof ManagerService>;
  readonly ml: Client<typeof MlService>;
  readonly mlArtifacts: Client<typeof MlArtifactService>;
  readonly models: Client<typeof ModelService>;
  readonly providers: Client<typeof ProviderService>;
  readonly rootKey: Client<typeof RootKeyService>;
  readonly rotation: Client<typeof RotationService>;
  readonly secretRotation: Client<typeof SecretRotationService>;
  readonly secrets: Client<typeof SecretService>;
  readonly sessions: Client<typeof SessionService>;
  readonly stores: Client<typeof StoreService>;
  readonly system: Client<typeof SystemService>;
  readonly tokens: Client<typeof TokenService>;
  readonly usage: Client<typeof UsageService>;
  readonly users: Client<typeof UserService>;
  readonly #transport: Transport;

  /** Throws InvalidArgument and Unauthenticated, which repeat neither address nor credential. */
  constructor(options: Options = {}) {
    const transport = createGrpcTransport({
      baseUrl: address(options.url ?? DEFAULT_URL),
      interceptors: [presenting(options)],
      ...(options.ca === undefined ? {} : { nodeOptions: { ca: Buffer.from(options.ca) } }),
    });
    this.#transport = patient(transport, new Breaker(), options.wait);
    this.access = this.service(AccessService);
    this.artifacts = this.service(ArtifactService);
    this.audit = this.service(AuditService);
    this.catalog = this.service(CatalogService);
    this.configs = this.service(ConfigService);
    this.files = this.service(FileService);
    this.info = this.service(InfoService);
    this.jobs = this.service(JobService);
    this.keys = this.service(ApiKeyService);
    this.maintenance = this.service(MaintenanceService);
    this.managers = this.service(ManagerService);
    this.ml = this.service(MlService);
    this.mlArtifacts = this.service(MlArtifactService);
    this.models = this.service(ModelService);
    this.providers = this.service(ProviderService);
    this.rootKey = this.service(RootKeyService);
    this.rotation = this.service(RotationService);
    this.secretRotation = this.service(SecretRotationService);
    this.secrets = this.service(SecretService);
    this.sessions = this.service(SessionService);
    this.stores = this.service(StoreService);
    this.system = this.service(SystemService);
    this.tokens = this.service(TokenService);
    this.usage = this.service(UsageService);
    this.users = this.service(UserService);
  }

  /** The client of any service of the protos, such as one of `strongroom/gen/…`. */
  service<Service extends DescService>(service: Service): Client<Service> {
    return createClient(service, this.#transport);
  }

  /** Stores one file as a new version. The server cuts, hashes and encrypts it as it arrives. */
  async putFile(place: FilePlace, content: Uint8Array | AsyncIterable<Uint8Array>): Promise<Version> {
    async function* messages() {
      yield { managerId: place.manager ?? "default", modelName: place.model, version: place.version, path: place.path };
      for await (const data of content instanceof Uint8Array ? cut(content) : content) {
        yield { body: { data } };
      }
    }
    return this.files.putFile(messages(), presented(place));
  }

  /** The bytes of a file, piece by piece, `length` of them from `offset` on. */
  async *getFile(place: FilePlace, range: { offset?: number; length?: number } = {}): AsyncGenerator<Uint8Array> {
    const request = {
      managerId: place.manager ?? "default",
      modelName: place.model,
      version: place.version,
      path: place.path,
      offset: BigInt(range.offset ?? 0),
      ...(range.length === undefined ? {} : { length: BigInt(range.length) }),
    };
    for await (const piece of this.files.getFile(request, presented(place))) {
      yield piece.data;
    }
  }
}

/** The pages of a listing, such as `pages(strongroom.models.listModels, { … })`, each fetched when it is asked for. */
export async function* pages<Asked extends object, Page extends { nextPageToken: string }>(
  list: (request: Asked) => Promise<Page>,
  request: NoInfer<Asked>,
): AsyncGenerator<Page> {
  for (let asked = request; ; ) {
    const page = await list(asked);
    yield page;
    if (!page.nextPageToken) {
      return;
    }
    asked = { ...asked, pageToken: page.nextPageToken };
  }
}

function* cut(content: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < content.length; at += PIECE) {
    yield content.subarray(at, at + PIECE);
  }
}

function presented(place: FilePlace): CallOptions {
  return place.accessCode === undefined ? {} : { headers: { "x-access-code": header(place.accessCode, "access code") } };
}

function presenting(options: Options): Interceptor {
  const key = options.apiKey ? header(options.apiKey, "API key") : undefined;
  const token = options.token;
  return (next) => async (request) => {
    if (key !== undefined) {
      request.header.set("x-api-key", key);
    } else if (token) {
      const value = typeof token === "string" ? token : await token();
      request.header.set("authorization", `Bearer ${header(value, "token")}`);
    }
    return next(request);
  };
}

function address(url: string): string {
  if (url.includes("@")) {
    // Not repeated: in front of the @ a password may stand.
    const message = "The address holds a user or a password. Give the key apart.";
    throw new InvalidArgument(message, { code: "INVALID_ARGUMENT", reason: "URL_INVALID" });
  }
  const parts = URL.canParse(url) ? new URL(url) : undefined;
  const beyond = parts && (parts.pathname !== "/" || parts.search || parts.hash);
  if (!parts || beyond || !["http:", "https:"].includes(parts.protocol)) {
    const message = `${JSON.stringify(url)} is no address of a Strongroom. It looks like ${DEFAULT_URL}.`;
    throw new InvalidArgument(message, { code: "INVALID_ARGUMENT", reason: "URL_INVALID" });
  }
  return parts.origin;
}

/** The value as a header carries it. */
function header(value: string, what: string): string {
  const stripped = value.trim();
  if (!/^[\x20-\x7e]+$/.test(stripped)) {
    const message = `The ${what} has characters that no ${what} has. Copy it again.`;
    throw new Unauthenticated(message, { code: "UNAUTHENTICATED", reason: "CREDENTIAL_INVALID" });
  }
  return stripped;
}
