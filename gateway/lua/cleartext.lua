-- For who speaks in the clear to a port of TLS. Nothing is redirected: a program that followed would go on sending its key
-- readable by everybody, and never say so.

local problem = require("problem")
local request = require("request")

function envoy_on_request(handle)
  request.remember(handle, "request_id", handle:headers():get("x-request-id") or "")
  request.refuse(handle, 403, "TLS_REQUIRED", "This port speaks TLS: write https://, and in gRPC use a secure channel. "
    .. "A credential that was sent could be read on the way: rotate it.")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if (headers:get("content-type") or ""):sub(1, 16) == "application/grpc" then
    problem.explain_grpc(handle, headers)
  else
    problem.answer(handle, headers, tonumber(headers:get(":status")))
  end
end
