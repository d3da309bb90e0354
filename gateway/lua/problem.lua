-- Failures: every one over REST becomes a problem document (RFC 9457), whoever failed: client, codec, router, auth or a service.
-- gRPC answers are left alone, but for failures that come without an ErrorInfo.

local recall = require("request").recall
local wire = require("wire")

local TITLES = {
  [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
  [408] = "Request Timeout", [409] = "Conflict", [411] = "Length Required", [412] = "Precondition Failed",
  [413] = "Content Too Large", [414] = "URI Too Long", [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable",
  [426] = "Upgrade Required", [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
  [499] = "Client Closed Request", [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout",
}

-- What gRPC has no code for, RFC 9110 has.
local STATUS_OF_REASON = {ETAG_MISMATCH = 412}

-- Failures that no service explains: their reason, and a sentence where Envoy has none or one about itself.
local REASONS = {
  [400] = {"REQUEST_MALFORMED", "The request is malformed."},
  [401] = {"CREDENTIAL_INVALID", "Invalid authentication credentials"},
  [403] = {"PERMISSION_DENIED", "This is not allowed."},
  [404] = {"PATH_UNKNOWN", "There is nothing at this path."},
  [405] = {"METHOD_NOT_ALLOWED", "This path does not answer to this method."},
  [408] = {"REQUEST_TIMEOUT", "The request took too long to arrive, or nothing moved for too long."},
  [413] = {"BODY_TOO_LARGE", "The body is larger than this method takes."},
  [431] = {"HEADERS_TOO_LARGE", "The headers are larger than 60 KiB, or more than 100."},
  [429] = {"RATE_LIMITED", "Too many requests. Try again later."},
  [500] = {"INTERNAL", "Internal error. The gateway's log has the details under the request id."},
  [502] = {"UNAVAILABLE", "A service gave no valid answer. Try again."},
  [503] = {"UNAVAILABLE", "A service does not answer. Try again."},
  [504] = {"DEADLINE_EXCEEDED", "A service took too long to answer."},
}

-- https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, and the failure above that explains a code.
local STATUS_OF_CODE = {[3] = 400, [4] = 504, [7] = 403, [8] = 429, [12] = 404, [13] = 500, [14] = 503, [16] = 401}
-- The codes of what is refused here; Envoy knows others for some of them.
local CODE_OF_STATUS = {[400] = 3, [401] = 16, [403] = 7, [408] = 4, [413] = 8, [429] = 8, [431] = 8}
-- What Envoy says over gRPC of limits for which gRPC has no code: it makes UNKNOWN of them.
local STATUS_OF_TEXT = {["Payload Too Large"] = 413, ["stream timeout"] = 408, ["request timeout"] = 408}

local function starts(text, prefix)
  return text:sub(1, #prefix) == prefix
end

-- What Envoy says about its own connections, and which check a token failed, is for the log.
local function about_inside(text)
  return text == "" or starts(text, "Jwt") or starts(text, "Jwks") or starts(text, "upstream ")
    or starts(text, "no healthy upstream") or starts(text, "no cluster") or text == "local_rate_limited"
    or text == "content length too large" or STATUS_OF_TEXT[text]
end

-- As many requests of a kind are under way as the gateway sends on at a time.
local function too_many(text)
  return starts(text, "upstream ") and text:find("reset reason: overflow", 1, true)
end

-- gRPC's runtime says of a message over a service's own limit what it says of too many requests.
local function too_large(text)
  return text:find("Received message larger than max", 1, true)
end

-- Reason and sentence for a failure that Envoy or auth's check explains in a line of text.
local function explain(status, text)
  if too_large(text) then return REASONS[413][1], REASONS[413][2] end
  if too_many(text) then return "UNAVAILABLE", "More requests are under way than a service takes. Try again." end
  local known = REASONS[status] or REASONS[status < 500 and 400 or 500]
  if about_inside(text) or text == TITLES[status] then return known[1], known[2] end
  if status == 401 and (starts(text, "Missing") or starts(text, "Authentication required")) then
    return "CREDENTIAL_MISSING", text
  end
  -- The transcoder repeats a value that does not fit its field, which may be a secret's: the field's name is enough.
  local field = text:match("^([^\n]-: invalid value) ")
  return known[1], field and field .. "." or text:match("^[^\n]*"):sub(1, 512)
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

-- The verbs that the path does answer to, if there are any. They come from the descriptor set. What ends in `:verify` is no
-- name that ends so, although its characters would do.
local function verbs_of(handle, path)
  local verbs = {}
  for _, entry in ipairs(handle:virtualHost():metadata():get("verbs") or {}) do
    if path:find(entry.pattern) then
      if entry.pattern:find(":%a+%$$") then return entry.verbs end
      verbs[#verbs + 1] = entry.verbs
    end
  end
  return #verbs > 0 and table.concat(verbs, ", ")
end

-- Whole seconds until another try is worth it: as the service says, as auth says, as the rate limit says.
local function seconds_to_wait(headers, details)
  local told = details:match('google%.rpc%.RetryInfo","retry_?[dD]elay":"([%d.]+)s"')
    or headers:get("retry-after") or headers:get("x-ratelimit-reset")
  return math.max(1, math.ceil(tonumber(told) or 1))
end

local function answer_problem(handle, headers, status)
  local request = recall(handle)
  local body = handle:body(true)
  local text = body:length() > 0 and body:getBytes(0, body:length()) or ""
  headers = handle:headers() -- the old one does not outlive the wait for the body
  local detail, details, reason = parse_status(text)
  if request.reason then
    reason, detail, details = request.reason, quote(request.detail), "[]"
  elseif not detail then
    local allowed = status == 404 and verbs_of(handle, request.path or "")
    if allowed and not (allowed .. ","):find(request.verb .. ",", 1, true) then
      status, text = 405, ""
      headers:replace(":status", "405")
      headers:replace("allow", allowed)
    end
    if too_many(text) then headers:replace("retry-after", "1") end
    reason, text = explain(status, text)
    detail, details = quote(text), "[]"
  elseif not reason and too_large(detail) then
    status = 413
    headers:replace(":status", "413")
    reason, text = explain(status, "")
    detail = quote(text)
  elseif not reason then
    reason = explain(status, "")
  elseif STATUS_OF_REASON[reason] then
    status = STATUS_OF_REASON[reason]
    headers:replace(":status", tostring(status))
  end
  -- RFC 9110, section 11.6.1: a 401 names a scheme.
  if status == 401 then headers:replace("www-authenticate", 'Bearer realm="strongroom"') end
  if status == 429 then headers:replace("retry-after", tostring(seconds_to_wait(headers, details))) end
  headers:replace("content-type", "application/problem+json")
  headers:replace("content-length", tostring(body:setBytes(problem(status, reason, detail, details, request))))
end

-- A gRPC failure that comes with headers alone and without details: one of Envoy's or auth's making, or of gRPC's runtime in a
-- service.
local function explain_grpc(handle, headers)
  local code = tonumber(headers:get("grpc-status") or "0")
  if code == 0 or headers:get("grpc-status-details-bin") then return end
  local request = recall(handle)
  local text = (headers:get("grpc-message") or ""):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  -- Envoy makes UNAVAILABLE of a 429 that auth's check answers, and others of what was refused here.
  local status = request.status or STATUS_OF_TEXT[text] or (code == 14 and headers:get("retry-after") and 429)
  if CODE_OF_STATUS[status] then
    code = CODE_OF_STATUS[status]
    headers:replace("grpc-status", tostring(code))
  end
  local reason, message = explain(status or STATUS_OF_CODE[code] or 500, text)
  if request.reason then reason, message = request.reason, request.detail end
  local seconds = (reason == "RATE_LIMITED" or too_many(text)) and seconds_to_wait(headers, "") or nil
  local details = wire.status(code, message, reason, request.request_id or "", seconds)
  if message ~= text then headers:replace("grpc-message", message) end
  headers:replace("grpc-status-details-bin", handle:base64Escape(details))
end

return {answer = answer_problem, explain_grpc = explain_grpc}
