# OpenBao for docker-compose.yml. It unseals itself with a key in a file, so that a restart needs nobody, and at its
# first start makes what Strongroom needs: https://openbao.org/docs/configuration/self-init/
ui = false
api_addr = "https://openbao:8200"
cluster_addr = "https://openbao:8201"

storage "raft" {
  path = "/openbao/file"
  node_id = "one"
  performance_multiplier = 1
}

listener "tcp" {
  address = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file = "/run/secrets/openbao.crt"
  tls_key_file = "/run/secrets/openbao_tls_key"
  tls_min_version = "tls12"
}

seal "static" {
  current_key_id = "1"
  current_key = "file:///run/secrets/openbao_seal"
}

initialize "key" {
  request "engine" {
    operation = "update"
    path = "sys/mounts/transit"
    data = { type = "transit" }
  }
  request "key" {
    operation = "update"
    path = "transit/keys/strongroom"
    data = { type = "aes256-gcm96" }
  }
}

initialize "sign-in" {
  # It may use the key, and can neither read nor replace it.
  request "policy" {
    operation = "update"
    path = "sys/policies/acl/strongroom"
    data = { policy = "path \"transit/+/strongroom\" { capabilities = [\"update\"] }" }
  }
  request "approle" {
    operation = "update"
    path = "sys/auth/approle"
    data = { type = "approle" }
  }
  request "role" {
    operation = "update"
    path = "auth/approle/role/strongroom"
    data = {
      token_policies = ["strongroom"]
      token_ttl = "5m"
      token_max_ttl = "5m"
    }
  }
  request "role-id" {
    operation = "update"
    path = "auth/approle/role/strongroom/role-id"
    data = { role_id = "strongroom" }
  }
  request "secret-id" {
    operation = "update"
    path = "auth/approle/role/strongroom/custom-secret-id"
    data = {
      secret_id = {
        eval_type = "string"
        eval_source = "file"
        path = "/run/secrets/openbao_secret_id"
      }
    }
  }
}
