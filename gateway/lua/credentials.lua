-- Credentials where they must not be.

-- Names of query parameters that carry credentials elsewhere, without case, dashes and underscores.
local NAMES = {
  accesstoken = true, apikey = true, apitoken = true, authorization = true, authtoken = true, bearer = true,
  clientsecret = true, currentpassword = true, idtoken = true, jwt = true, newpassword = true, password = true,
  refreshtoken = true, secret = true, token = true, xapikey = true,
}

local SECRETS = {
  -- Keys and refresh tokens. Shorter than they are, so that one that was cut off is found as well; longer than what is named
  -- after one.
  "sr_" .. ("%w"):rep(30), "srr_" .. ("%w"):rep(30),
}

-- Who reads a log or calls on may decode once more than we do. Nobody encodes so often with good intentions.
local READINGS = 8

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Whether one of the readings of a text, or the lack of a last one, is as `judge` says.
local function in_a_reading(text, judge)
  for _ = 1, READINGS do
    if judge(text) then return true end
    local read = decode(text)
    if read == text then return false end
    text = read
  end
  return true
end

-- Whether a token is in it (RFC 7515, section 3.1), whose first part begins with `{"`. Each character is looked at twice at most:
-- a pattern that begins anywhere reads 60 KB of `eyJeyJ` for half a minute.
local function holds_token(text)
  local place = 1
  while true do
    local _, last = text:find("eyJ", place, true)
    if not last then return false end
    place = text:match("^[%w_-]+()", last + 1) or last + 1
    if text:find("^%.[%w_-]+%.", place) then return true end
  end
end

local function holds_secret(text)
  for _, pattern in ipairs(SECRETS) do
    if text:find(pattern) then return true end
  end
  return holds_token(text)
end

local function is_named(name)
  return NAMES[name:lower():gsub("[-_]", "")]
end

local function named_in(query)
  -- Values come along: a pattern that wants the sign reads one of 60 KB from each of its characters on.
  for name, sign in query:gmatch("([^&=;]+)(=?)") do
    if sign == "=" and in_a_reading(name, is_named) then return true end
  end
end

-- Whether the target of a request holds a credential, and its path as it may stand in a log and in an answer.
local function in_target(target)
  local path, query = target:match("^([^?]*)%??(.*)$")
  if in_a_reading(path, holds_secret) then return true, "/[redacted]" end
  return query ~= "" and (named_in(query) or in_a_reading(query, holds_secret)) or false, path
end

-- One request, one credential: whoever sends a second, wrong one must learn that it is wrong. jwt_authn would accept the
-- token and never look at the key; so it gets to see none, and auth, which is then asked, hears why.
local function hide_if_several(headers)
  local several = headers:getNumValues("x-api-key") + headers:getNumValues("authorization") > 1
  if several then
    headers:remove("authorization")
    headers:remove("x-api-key")
    headers:add("x-strongroom-several-credentials", "true")
  end
end

-- Schemes have no case (RFC 9110, section 11.1), but jwt_authn and those behind it know one spelling.
local function spell_scheme(headers)
  local scheme, rest = (headers:get("authorization") or ""):match("^(%a+) +(.*)$")
  if scheme and scheme ~= "Bearer" and scheme:lower() == "bearer" then
    headers:replace("authorization", "Bearer " .. rest)
  end
end

return {in_target = in_target, spell_scheme = spell_scheme, hide_if_several = hide_if_several}
