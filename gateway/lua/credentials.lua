-- Credentials where they must not be.

-- Names of query parameters that carry credentials elsewhere, without case, dashes and underscores.
local NAMES = {
  accesstoken = true, apikey = true, authorization = true, authtoken = true, refreshtoken = true, xapikey = true,
}

-- Shorter than a key, so that one that was cut off is found as well; longer than what is named after one.
local KEY = "sr_" .. ("%w"):rep(30)

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function named_in(query)
  for name in query:gmatch("([^&=;]+)=") do
    if NAMES[decode(name):lower():gsub("[-_]", "")] then return true end
  end
end

-- Whether the target of a request holds a credential, and its path as it may stand in a log and in an answer.
local function in_target(target)
  local path, query = target:match("^([^?]*)%??(.*)$")
  local shown = decode(path):find(KEY) and "/[redacted]" or path
  if shown ~= path or query == "" then return shown ~= path, shown end
  return (named_in(query) or decode(query):find(KEY) ~= nil), shown
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

return {in_target = in_target, hide_if_several = hide_if_several}
