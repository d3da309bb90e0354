-- The first filter: it hears of a request before all others, and of its answer after them.

local access_code = require("access_code")
local credentials = require("credentials")
local origins = require("origins")
local problem = require("problem")
local request = require("request")

-- What is about gRPC, and what services tell the gateway alone.
local INSIDE = {
  "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-accept-encoding", "grpc-encoding", "x-http-code",
  "x-content-length",
}

local function is_grpc(headers)
  return (headers:get("content-type") or ""):sub(1, 16) == "application/grpc"
end

-- A segment without a name. Routes take it for no path and the transcoder for a field that is empty: nobody reads it.
local function has_gap(path)
  return path:find("//", 1, true) or (#path > 1 and path:sub(-1) == "/")
end

-- `/api-keys/` is `/api-keys`; the name of a file keeps its slash and is judged with it.
local function without_slash(headers, path)
  if #path < 2 or path:sub(-1) ~= "/" or path:find("/files/", 1, true) then return path end
  headers:replace(":path", path:sub(1, -2) .. headers:get(":path"):sub(#path + 1))
  return path:sub(1, -2)
end

-- The limits on headers. Envoy's own, which are above, cut the connection in HTTP/2 and say nothing.
local MOST_BYTES, MOST_HEADERS = 60 * 1024, 100

local function too_many_headers(headers)
  local count, bytes = 0, 0
  for name, value in pairs(headers) do count, bytes = count + 1, bytes + #name + #value end
  return count > MOST_HEADERS or bytes > MOST_BYTES
end

function envoy_on_request(handle)
  local headers = handle:headers()
  request.remember(handle, "request_id", headers:get("x-request-id") or "")
  local exposed, path = credentials.in_target(headers:get(":path") or "")
  if not is_grpc(headers) then
    if not exposed then path = without_slash(headers, path) end
    request.remember(handle, "verb", headers:get(":method"))
  end
  -- The log shows this path: it holds no credential and no query.
  request.remember(handle, "path", path)
  if too_many_headers(headers) then
    request.refuse(handle, 431, "HEADERS_TOO_LARGE", "The headers are larger than 60 KiB, or more than 100.")
    return
  end
  local moved = exposed or access_code.moved(headers, path)
  if origins.answered(handle, headers, path) then return end
  if exposed then
    local detail = "A credential does not belong in a URL, which ends up in logs and histories. Send it as a header, and "
      .. "rotate this one: somebody may have seen it."
    request.refuse(handle, 400, "CREDENTIAL_IN_URL", detail)
    return
  end
  if has_gap(path) then
    local detail = "A segment of this path is empty. Write one slash between names, and none at the end."
    request.refuse(handle, 404, "PATH_UNKNOWN", detail)
    return
  end
  if not moved then
    local detail = "An access code in a query has at most 1024 printable ASCII characters."
    request.refuse(handle, 400, "ACCESS_CODE_INVALID", detail)
    return
  end
  credentials.hide_if_several(headers)
  credentials.spell_scheme(headers)
end

-- What the service said about its answer before the first byte: the status of success, and the length of a stream.
local function apply_hints(handle, headers)
  local code, length = headers:get("x-http-code"), headers:get("x-content-length")
  if code and code:find("^2%d%d$") then headers:replace(":status", code) end
  if length and length:find("^%d+$") then
    headers:replace("content-length", length)
    -- A gRPC error after the first byte ends an answer as if it were whole. With a length the client sees it cut; on HTTP/1.1
    -- the connection must end for that.
    if handle:streamInfo():protocol() == "HTTP/1.1" then handle:streamInfo():drainConnectionUponCompletion() end
  end
end

-- What browsers are told about every answer, unless the service says it for a page of its own.
local DEFAULTS = {
  -- Nobody else keeps tokens, secrets and what a caller may see (RFC 6749, section 5.1; RFC 9111, section 5.2.2.5).
  ["cache-control"] = "no-store",
  -- An answer is data: never taken for a page or a script, shown in no frame, and no link of it tells where it stood.
  ["x-content-type-options"] = "nosniff",
  ["content-security-policy"] = "default-src 'none'; frame-ancestors 'none'",
  ["x-frame-options"] = "DENY",
  ["referrer-policy"] = "no-referrer",
}

-- From now on https alone (RFC 6797). Not for names of this machine, where other servers have other ports.
local function pin_to_https(handle, headers)
  local name = (handle:streamInfo():requestedServerName() or ""):lower()
  if not name:find("%.") or name:find("%.localhost$") then return end
  local seconds = handle:virtualHost():metadata():get("hsts") or 0
  if seconds > 0 then headers:replace("strict-transport-security", string.format("max-age=%d", seconds)) end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local origin = request.recall(handle).origin
  if origin then origins.mark(headers, origin) end
  if is_grpc(headers) then
    problem.explain_grpc(handle, headers)
    return
  end
  -- The answer may differ for another website: caches keep them apart.
  headers:add("vary", "Origin")
  for name, value in pairs(DEFAULTS) do
    if not headers:get(name) then headers:add(name, value) end
  end
  pin_to_https(handle, headers)
  local status = tonumber(headers:get(":status"))
  if status == 200 then apply_hints(handle, headers) end
  for _, name in ipairs(INSIDE) do headers:remove(name) end
  if status >= 400 then problem.answer(handle, headers, status) end
end
