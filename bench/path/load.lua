-- Every request buys one unit for a buyer who never came before, with a full
-- body. Arguments: path, Host, a prefix that no other run uses, "keyed" or "plain".
--
-- There is no response function: wrk would parse every answer for it. The summary
-- knows how many answers came and how many of them were refusals.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

local count = 0
local buyer, head, key

function init(args)
  buyer = "u-" .. args[3] .. "-" .. number .. "-"
  head = "POST " .. args[1] .. " HTTP/1.1\r\nHost: " .. args[2] ..
    "\r\nContent-Type: application/json\r\n"
  key = args[4] == "keyed"
end

function request()
  count = count + 1
  local name = buyer .. (1000000 + count) -- as many digits for everyone
  local body = '{"buyer":"' .. name .. '","quantity":1}'
  if key then
    return head .. "Idempotency-Key: k-" .. name .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
  end
  return head .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"refused":%d,"duration_us":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"p50_us":%d,"p99_us":%d,"max_us":%d}\n',
    summary.requests, e.status, summary.duration, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
