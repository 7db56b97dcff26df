-- Lets wrk print its sums as one line of JSON, and rotates the path when asked to.
--   wrk ... -s load.lua URL [COUNT]     COUNT > 0: paths /route/0/ ... /route/COUNT-1/

local count = 0

function init(args)
   count = tonumber(args[1] or "0")
   math.randomseed(1)
end

function request()
   if count == 0 then
      return wrk.format()
   end
   return wrk.format("GET", "/route/" .. math.random(0, count - 1) .. "/")
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "bytes": %d, "us": %d, "connect": %d, "read": %d, "write": %d, '
      .. '"timeout": %d, "status": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.bytes, summary.duration, e.connect, e.read, e.write,
      e.timeout, e.status, latency:percentile(50), latency:percentile(99)))
end
