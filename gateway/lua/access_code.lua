-- An access code in the query of an upload, which forms of old send: a header of ours from here on, before anything is
-- logged or asked with the path. The header goes before.

local HEADER = "x-access-code"
local UPLOAD = "^/api/managers/[^/]+/upload%-model$"

local function decode(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Takes it out of the target of a request. False if it is one that no header can carry.
local function moved(headers, path)
  local target = headers:get(":path") or ""
  local query = target:match("^[^?]*%?(.*)$")
  if not query or not path:find(UPLOAD) then return true end
  local kept, code = {}, nil
  for parameter in query:gmatch("[^&]+") do
    local name, value = parameter:match("^([^=]*)=?(.*)$")
    if decode(name) == "access_code" then code = code or decode(value) else kept[#kept + 1] = parameter end
  end
  if not code then return true end
  local rest = table.concat(kept, "&")
  headers:replace(":path", path .. (rest ~= "" and "?" .. rest or ""))
  -- Only what gRPC's metadata may hold: printable ASCII.
  if code:find("[^\32-\126]") or #code > 1024 then return false end
  if code ~= "" and not headers:get(HEADER) then headers:add(HEADER, code) end
  return true
end

return {moved = moved}
