-- Merges states into registers, each cell by its version, and announces each register that changed.
--
-- KEYS: the stream of announcements, then the registers. ARGV: how many announcements to keep, how long a state may be to be announced
-- with it, then a state for each register, then what each register is called. The form of a state is that of `Item` in item.rs.
-- Returns for each register 1 if it changed, 0 if not, and 2 if the state is from a clock so far ahead that nobody would believe it.

local FORMAT = 1
local CELL = 21 -- index, version, end, length of the value
local FURTHEST_AHEAD = 86400000 -- milliseconds, as in version.rs

-- The upper half of a version counts every 65,536 milliseconds.
local time = redis.call('TIME')
local furthest = math.floor((time[1] * 1000 + FURTHEST_AHEAD) / 65536)

local function take_apart(bytes)
    if string.byte(bytes, 1) ~= FORMAT then
        return nil
    end
    local length = string.byte(bytes, 2)
    local state = { host = string.sub(bytes, 3, 2 + length), cells = {}, high = 0, low = 0 }
    local at = 3 + length
    local count = string.byte(bytes, at)
    at = at + 1
    for _ = 1, count do
        local index = string.byte(bytes, at)
        -- A Lua number holds 53 bits: versions are compared by halves.
        local high, low, ends_high, ends_low, size = struct.unpack('>I4I4I4I4I4', bytes, at + 1)
        state.cells[index] = {
            high = high,
            low = low,
            ends = ends_high * 4294967296 + ends_low,
            payload = string.sub(bytes, at + CELL, at + CELL + size - 1),
            bytes = string.sub(bytes, at, at + CELL + size - 1),
        }
        if high > state.high or (high == state.high and low > state.low) then
            state.high, state.low = high, low
        end
        at = at + CELL + size
    end
    return state
end

-- The order of strings in Lua depends on the locale.
local function follows(one, other)
    local shorter = math.min(#one, #other)
    for at = 1, shorter do
        local a, b = string.byte(one, at), string.byte(other, at)
        if a ~= b then
            return a > b
        end
    end
    return #one > #other
end

local function replaces(one, other)
    if one.high ~= other.high then
        return one.high > other.high
    end
    if one.low ~= other.low then
        return one.low > other.low
    end
    if one.payload ~= other.payload then
        return follows(one.payload, other.payload)
    end
    return one.ends > other.ends
end

local function put_together(state)
    local indexes = {}
    for index in pairs(state.cells) do
        table.insert(indexes, index)
    end
    table.sort(indexes)
    local parts = { string.char(FORMAT, #state.host), state.host, string.char(#indexes) }
    for _, index in ipairs(indexes) do
        table.insert(parts, state.cells[index].bytes)
    end
    return table.concat(parts)
end

-- Unix time in seconds from which nothing of it is of use; zero: never.
local function ends(state)
    local last = 0
    for _, cell in pairs(state.cells) do
        if cell.ends == 0 then
            return 0
        end
        last = math.max(last, cell.ends)
    end
    return last
end

local function merge(key, name, bytes)
    local new = take_apart(bytes)
    if new.high > furthest then
        return 2
    end
    local known = redis.call('GET', key)
    local state = new
    if known then
        state = take_apart(known)
        if not state then
            -- A later version of the program wrote it, and knows better.
            return 0
        end
        local changed = false
        for index, cell in pairs(new.cells) do
            local before = state.cells[index]
            if not before or replaces(cell, before) then
                state.cells[index] = cell
                changed = true
            end
        end
        if not changed then
            return 0
        end
        if new.high > state.high or (new.high == state.high and new.low > state.low) then
            state.host = new.host
        end
    end
    local value = put_together(state)
    redis.call('SET', key, value)
    local last = ends(state)
    if last > 0 then
        redis.call('EXPIREAT', key, string.format('%d', last))
    end
    if #value <= tonumber(ARGV[2]) then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'k', name, 'v', value)
    else
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'k', name)
    end
    return 1
end

local count = #KEYS - 1
local changed = {}
for number = 1, count do
    changed[number] = merge(KEYS[number + 1], ARGV[2 + count + number], ARGV[2 + number])
end
return changed
