-- The first filter: it hears of a request before all others, and of its answer after them. It makes every failure over REST a
-- problem document (RFC 9457), whoever failed: client, codec, router, auth or a service. gRPC answers are left alone, but for
-- failures that Envoy itself reports without an ErrorInfo.

local METADATA = "strongroom"

local TITLES = {
  [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
  [408] = "Request Timeout", [409] = "Conflict", [411] = "Length Required", [412] = "Precondition Failed",
  [413] = "Content Too Large", [414] = "URI Too Long", [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable",
  [426] = "Upgrade Required", [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
  [499] = "Client Closed Request", [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout",
}

-- Failures that no service explains: their reason, and a sentence where Envoy has none or one about itself.
local REASONS = {
  [400] = {"REQUEST_MALFORMED", "The request is malformed."},
  [401] = {"CREDENTIAL_INVALID", "Invalid authentication credentials"},
  [403] = {"PERMISSION_DENIED", "This is not allowed."},
  [404] = {"PATH_UNKNOWN", "There is nothing at this path."},
  [405] = {"METHOD_NOT_ALLOWED", "This path does not answer to this method."},
  [408] = {"REQUEST_TIMEOUT", "The request took too long to arrive."},
  [413] = {"BODY_TOO_LARGE", "The body is larger than this method takes."},
  [431] = {"HEADERS_TOO_LARGE", "The headers are larger than 60 KiB."},
  [429] = {"RATE_LIMITED", "Too many requests. Try again later."},
  [500] = {"INTERNAL", "Internal error. The gateway's log has the details under the request id."},
  [502] = {"UNAVAILABLE", "A service gave no valid answer. Try again."},
  [503] = {"UNAVAILABLE", "A service does not answer. Try again."},
  [504] = {"DEADLINE_EXCEEDED", "A service took too long to answer."},
}

-- https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, and the failure above that explains a code.
local STATUS_OF_CODE = {[3] = 400, [4] = 504, [7] = 403, [8] = 429, [12] = 404, [13] = 500, [14] = 503, [16] = 401}

local function starts(text, prefix)
  return text:sub(1, #prefix) == prefix
end

local function is_grpc(headers)
  return starts(headers:get("content-type") or "", "application/grpc")
end

-- What Envoy says about its own connections, and which check a token failed, is for the log.
local function about_inside(text)
  return text == "" or starts(text, "Jwt") or starts(text, "Jwks") or starts(text, "upstream ")
    or starts(text, "no healthy upstream") or starts(text, "no cluster")
end

-- gRPC's runtime says of a message over a service's own limit what it says of too many requests.
local function too_large(text)
  return text:find("Received message larger than max", 1, true)
end

-- Reason and sentence for a failure that Envoy or auth's check explains in a line of text.
local function explain(status, text)
  if too_large(text) then return REASONS[413][1], REASONS[413][2] end
  local known = REASONS[status] or REASONS[status < 500 and 400 or 500]
  if about_inside(text) or text == TITLES[status] then return known[1], known[2] end
  if status == 401 and (starts(text, "Missing") or starts(text, "Authentication required")) then
    return "CREDENTIAL_MISSING", text
  end
  return known[1], text:match("^[^\n]*"):sub(1, 512)
end

local function quote(text)
  local escaped = text:gsub('[%c"\\\127-\255]', function(character)
    local byte = character:byte()
    if byte > 126 then return string.format("%%%02X", byte) end
    return string.format("\\u%04x", byte)
  end)
  return '"' .. escaped .. '"'
end

-- The string literal that begins at `from`, with its quotes, as it stands in the JSON text.
local function literal(json, from)
  local at = from + 1
  while at <= #json do
    local character = json:sub(at, at)
    if character == '"' then return json:sub(from, at) end
    at = at + (character == "\\" and 2 or 1)
  end
end

-- The message, the details and the reason of a google.rpc.Status in the compact JSON that the transcoder writes. Inside of a
-- string its quotes are escaped, so the pattern of the reason matches none of what a caller wrote.
local function parse_status(json)
  local _, before_message = json:find('^{"code":%d+,"message":')
  local message = before_message and literal(json, before_message + 1)
  if not message then return end
  local details = json:sub(before_message + #message + 1):match('^,"details":(%[.*%])}%s*$') or "[]"
  return message, details, details:match('"reason":"([A-Z0-9_]+)"')
end

local function problem(status, reason, detail, details, request)
  local kebab = reason:lower():gsub("_", "-")
  return string.format(
    '{"type":"urn:strongroom:error:%s","title":%s,"status":%d,"detail":%s,"instance":%s,'
      .. '"status_code":%d,"reason":"%s","request_id":%s,"details":%s}',
    kebab, quote(TITLES[status] or "Error"), status, detail, quote(request.path or ""),
    status, reason, quote(request.request_id or ""), details)
end

-- The verbs that the path does answer to, if there are any. They come from the descriptor set.
local function verbs_of(handle, path)
  local verbs = {}
  for _, entry in ipairs(handle:virtualHost():metadata():get("verbs") or {}) do
    if path:find(entry.pattern) then verbs[#verbs + 1] = entry.verbs end
  end
  return #verbs > 0 and table.concat(verbs, ", ")
end

local function answer_problem(handle, headers, status)
  local request = handle:streamInfo():dynamicMetadata():get(METADATA) or {}
  local body = handle:body(true)
  local text = body:length() > 0 and body:getBytes(0, body:length()) or ""
  headers = handle:headers() -- the old one does not outlive the wait for the body
  local detail, details, reason = parse_status(text)
  if not detail then
    local allowed = status == 404 and verbs_of(handle, request.path or "")
    if allowed and not (allowed .. ","):find(request.verb .. ",", 1, true) then
      status, text = 405, ""
      headers:replace(":status", "405")
      headers:replace("allow", allowed)
    end
    reason, text = explain(status, text)
    detail, details = quote(text), "[]"
  elseif not reason and too_large(detail) then
    status = 413
    headers:replace(":status", "413")
    reason, text = explain(status, "")
    detail = quote(text)
  elseif not reason then
    reason = explain(status, "")
  end
  -- RFC 9110, section 11.6.1: a 401 names a scheme.
  if status == 401 then headers:replace("www-authenticate", 'Bearer realm="strongroom"') end
  headers:replace("content-type", "application/problem+json")
  headers:replace("content-length", tostring(body:setBytes(problem(status, reason, detail, details, request))))
end

-- Just enough of protobuf's wire format for a google.rpc.Status with one ErrorInfo.
local function varint(number)
  local bytes = ""
  while number > 127 do
    bytes = bytes .. string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return bytes .. string.char(number)
end

local function field(number, bytes)
  return string.char(number * 8 + 2) .. varint(#bytes) .. bytes
end

local function error_details(code, message, reason, request_id)
  local info = field(1, reason) .. field(2, "strongroom") .. field(3, field(1, "request_id") .. field(2, request_id))
  local any = field(1, "type.googleapis.com/google.rpc.ErrorInfo") .. field(2, info)
  return "\8" .. varint(code) .. field(2, message) .. field(3, any)
end

-- A gRPC failure that comes with headers alone and without details: Envoy's own, or one of gRPC's runtime in a service.
local function explain_grpc(handle, headers)
  local code = tonumber(headers:get("grpc-status") or "0")
  if code == 0 or headers:get("grpc-status-details-bin") then return end
  local request = handle:streamInfo():dynamicMetadata():get(METADATA) or {}
  local text = (headers:get("grpc-message") or ""):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  local reason, message = explain(STATUS_OF_CODE[code] or 500, text)
  local details = error_details(code, message, reason, request.request_id or "")
  if message ~= text then headers:replace("grpc-message", message) end
  headers:replace("grpc-status-details-bin", handle:base64Escape(details))
end

-- What the service said about its answer before the first byte: the status of success, and the length of a stream.
local function apply_hints(handle, headers, status)
  local code, length = headers:get("x-http-code"), headers:get("x-content-length")
  if status == 200 and code and code:find("^2%d%d$") then headers:replace(":status", code) end
  if status == 200 and length and length:find("^%d+$") then
    headers:replace("content-length", length)
    -- A gRPC error after the first byte ends an answer as if it were whole. With a length the client sees it cut; on HTTP/1.1
    -- the connection must end for that.
    if handle:streamInfo():protocol() == "HTTP/1.1" then handle:streamInfo():drainConnectionUponCompletion() end
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = (headers:get(":path") or ""):match("^[^?]*")
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(METADATA, "request_id", headers:get("x-request-id") or "")
  if is_grpc(headers) then return end
  -- `/api-keys/` is `/api-keys`; the name of a file keeps every slash and is judged with it.
  if #path > 1 and path:sub(-1) == "/" and not path:find("/files/", 1, true) then
    headers:replace(":path", path:sub(1, -2) .. headers:get(":path"):sub(#path + 1))
    path = path:sub(1, -2)
  end
  metadata:set(METADATA, "path", path)
  metadata:set(METADATA, "verb", headers:get(":method"))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if is_grpc(headers) then
    explain_grpc(handle, headers)
  else
    local status = tonumber(headers:get(":status"))
    apply_hints(handle, headers, status)
    for _, name in ipairs({"grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-accept-encoding", "grpc-encoding"}) do
      headers:remove(name)
    end
    headers:remove("x-http-code")
    headers:remove("x-content-length")
    if status >= 400 then answer_problem(handle, headers, status) end
  end
end
