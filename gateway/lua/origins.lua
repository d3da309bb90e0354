-- Websites: browsers tell on whose behalf they ask (RFC 6454, section 7). Where that is somebody who may not, no service
-- hears of it. https://fetch.spec.whatwg.org/#http-cors-protocol

local request = require("request")
local wire = require("wire")

local METHODS = "GET,POST,PUT,DELETE,OPTIONS"
local HEADERS = "content-type,authorization,x-api-key,x-access-code"
local EXPOSED = "retry-after,www-authenticate,x-ratelimit-limit,x-ratelimit-remaining,x-ratelimit-reset,ratelimit-limit,"
  .. "ratelimit-remaining,ratelimit-reset,x-request-id"
local MAX_AGE = "600"
local DEFAULT_PORTS = {http = ":80", https = ":443"}

-- A worker thread reports so many refusals a second; the others are counted and told with the next.
local REPORTS = 5
local second, reported, untold = 0, 0, 0

local allowed -- origin → true, read once

local function may(handle, origin)
  if not allowed then
    allowed = {}
    for _, name in ipairs(handle:virtualHost():metadata():get("origins") or {}) do allowed[name] = true end
  end
  return allowed[origin]
end

-- Whether the gateway itself served the page. The scheme is that of the connection.
local function same(headers, origin)
  local scheme, host = headers:get("x-forwarded-proto") or "", headers:get(":authority") or ""
  local port = DEFAULT_PORTS[scheme]
  if port and host:sub(-#port) == port then host = host:sub(1, -#port - 1) end
  return host ~= "" and origin == scheme .. "://" .. host:lower()
end

-- Tells auth, which keeps counters and the audit log, and does not wait for it.
local function report(handle, origin, path)
  untold = untold + 1
  if os.time() ~= second then second, reported = os.time(), 0 end
  if reported >= REPORTS then return end
  local address = handle:streamInfo():downstreamRemoteAddress():match("^%[?(.-)%]?:%d+$") or ""
  local message = wire.text(1, origin:sub(1, 256)) .. wire.text(2, address) .. wire.text(3, path:sub(1, 256))
    .. wire.integer(4, untold)
  reported, untold = reported + 1, 0
  handle:httpCall("auth", {
    [":method"] = "POST", [":path"] = "/strongroom.edge.v1.EdgeService/ReportRefusedOrigin", [":authority"] = "auth",
    ["content-type"] = "application/grpc", te = "trailers",
  }, wire.frame(message), 1000, true)
end

-- Answers preflights and who may not ask. False for what goes on its way.
local function answered(handle, headers, path)
  local origin = headers:get("origin")
  if not origin then return false end
  if headers:getNumValues("origin") > 1 or not (same(headers, origin) or may(handle, origin)) then
    report(handle, origin, path)
    request.refuse(handle, 403, "ORIGIN_NOT_ALLOWED", "Origin not allowed")
    return true
  end
  request.remember(handle, "origin", origin)
  if headers:get(":method") ~= "OPTIONS" or not headers:get("access-control-request-method") then return false end
  handle:respond({
    [":status"] = "204", ["access-control-allow-methods"] = METHODS, ["access-control-allow-headers"] = HEADERS,
    ["access-control-max-age"] = MAX_AGE,
  })
  return true
end

-- Lets the browser show an answer, an error as well, to the website that asked.
local function mark(headers, origin)
  headers:replace("access-control-allow-origin", origin)
  headers:replace("access-control-expose-headers", EXPOSED)
end

return {answered = answered, mark = mark}
