-- Websites: browsers tell on whose behalf they ask (RFC 6454, section 7). Where that is somebody who may not, no service
-- hears of it. https://fetch.spec.whatwg.org/#http-cors-protocol

local request = require("request")
local wire = require("wire")

local METHODS = "GET,POST,PUT,DELETE,OPTIONS"
local HEADERS = "content-type,authorization,x-api-key,x-access-code,if-match,if-none-match"
local EXPOSED = "retry-after,www-authenticate,x-ratelimit-limit,x-ratelimit-remaining,x-ratelimit-reset,ratelimit-limit,"
  .. "ratelimit-remaining,ratelimit-reset,ratelimit-policy,x-request-id,etag,offset"
local MAX_AGE = "600"
local DEFAULT_PORTS = {http = ":80", https = ":443"}

-- A worker thread reports so many refusals a second; the others are counted and told with the next.
local REPORTS = 5
local second, reported, untold = 0, 0, 0

local known = {} -- by the list's name: name → true, read once

local function listed(handle, list, name)
  if not known[list] then
    known[list] = {}
    for _, entry in ipairs(handle:virtualHost():metadata():get(list) or {}) do known[list][entry] = true end
  end
  return known[list][name] or false
end

-- The origin that the request was sent to, by its own account. The scheme is that of the connection.
local function asked(headers)
  local scheme, host = headers:get("x-forwarded-proto") or "", (headers:get(":authority") or ""):lower()
  local port = DEFAULT_PORTS[scheme]
  if port and host:sub(-#port) == port then host = host:sub(1, -#port - 1) end
  return scheme .. "://" .. host, (host:gsub(":%d+$", ""))
end

-- Whether the gateway answers to a host. Whoever has a name of their own can let it lead here and be the same origin as what
-- they find, so names count where they are ours; behind an address is nobody else.
local function is_ours(handle, origin, host)
  return listed(handle, "hosts", host) or listed(handle, "origins", origin)
    or host:find("^%d+%.%d+%.%d+%.%d+$") or host:find("^%[[%x:.]+%]$")
end

-- Whether the gateway itself served the page.
local function same(handle, headers, origin)
  local own, host = asked(headers)
  return origin == own and is_ours(handle, own, host)
end

-- Browsers name no origin when a page reads from where it was served. In open mode nobody else asks them who they are.
local function led_here(handle, headers, path)
  if not handle:virtualHost():metadata():get("open") or headers:get(":method") ~= "GET" then return false end
  if path:sub(1, 4) ~= "/api" or headers:get("x-api-key") or headers:get("authorization") then return false end
  return not is_ours(handle, asked(headers))
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
  if not origin then
    if not led_here(handle, headers, path) then return false end
    local detail = "In open mode the gateway answers to names that it knows: list this one in STRONGROOM_ALLOWED_ORIGINS, "
      .. "or send a credential."
    request.refuse(handle, 403, "HOST_NOT_ALLOWED", detail)
    return true
  end
  if headers:getNumValues("origin") > 1 or not (same(handle, headers, origin) or listed(handle, "origins", origin)) then
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
