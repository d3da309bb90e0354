-- Just enough of protobuf's wire format for what the gateway itself has to say.

local function varint(number)
  local bytes = ""
  while number > 127 do
    bytes = bytes .. string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return bytes .. string.char(number)
end

-- A string, bytes or a message.
local function text(number, bytes)
  return string.char(number * 8 + 2) .. varint(#bytes) .. bytes
end

local function integer(number, value)
  return string.char(number * 8) .. varint(value)
end

local function any(name, message)
  return text(3, text(1, "type.googleapis.com/google.rpc." .. name) .. text(2, message))
end

-- A google.rpc.Status with an ErrorInfo, and a RetryInfo where it is known when to try again.
local function status(code, message, reason, request_id, seconds)
  local metadata = text(3, text(1, "request_id") .. text(2, request_id))
  local info = any("ErrorInfo", text(1, reason) .. text(2, "strongroom") .. metadata)
  local retry = seconds and any("RetryInfo", text(1, integer(1, seconds))) or ""
  return integer(1, code) .. text(2, message) .. info .. retry
end

-- A message as a gRPC request carries it.
local function frame(message)
  local length = #message
  local bytes = {}
  for place = 4, 1, -1 do
    bytes[place] = string.char(length % 256)
    length = math.floor(length / 256)
  end
  return "\0" .. table.concat(bytes) .. message
end

return {text = text, integer = integer, status = status, frame = frame}
