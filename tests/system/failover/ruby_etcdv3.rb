# An application with the Ruby library etcdv3. lines.py says what it prints.

require 'etcdv3'

TIMEOUT, PERIOD, LEASE, REFRESH, DAY = 5, 0.05, 5, 1.5, 86_400
addresses, prefix = ARGV
endpoints = addresses.split(',').map { |address| "http://#{address}" }.join(',')
CLIENT = Etcdv3.new(endpoints: endpoints, command_timeout: TIMEOUT)
$stdout.sync = true

def say(what)
  $stdout.write(format("@ %.3f %s\n", Time.now.to_f, what))
end

def why(err)
  "#{err.class} #{err.message}".tr("\n", ' ')[0, 200]
end

def repeat(name, period)
  loop do
    begun = Time.now
    begin
      yield
      say("#{name} ok") unless name == 'lease'
    rescue StandardError, SystemStackError => err
      say("#{name} #{name == 'lease' ? 'told' : 'failed'}: #{why(err)}")
    end
    sleep([0, period - (Time.now - begun)].max)
  end
end

lease = CLIENT.lease_grant(LEASE).ID
say("lease #{lease}")
Thread.new do
  CLIENT.watch("#{prefix}watched", timeout: DAY) do |events|
    events.each { |event| say("event #{event.kv.value.to_i}") }
  end
  say('watch told: end')
rescue StandardError, SystemStackError => err
  say("watch told: #{why(err)}")
end
number = 0
Thread.new { repeat('put', PERIOD) { CLIENT.put("#{prefix}own", (number += 1).to_s) } }
Thread.new { repeat('get', PERIOD) { CLIENT.get("#{prefix}own") } }
repeat('lease', REFRESH) do
  ttl = CLIENT.lease_keep_alive_once(lease).TTL
  raise "the lease has ended: TTL #{ttl}" unless ttl.positive?
end
