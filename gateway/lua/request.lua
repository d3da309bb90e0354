-- What is remembered of a request until its answer passes, and how a request is refused here.

local FILTER = "strongroom"

local function remember(handle, name, value)
  handle:streamInfo():dynamicMetadata():set(FILTER, name, value)
end

local function recall(handle)
  return handle:streamInfo():dynamicMetadata():get(FILTER) or {}
end

-- Ends the request. The answer passes envoy_on_response, which makes a problem document or an ErrorInfo of it.
local function refuse(handle, status, reason, detail)
  remember(handle, "status", status)
  remember(handle, "reason", reason)
  remember(handle, "detail", detail)
  handle:respond({[":status"] = tostring(status)}, "")
end

return {remember = remember, recall = recall, refuse = refuse}
