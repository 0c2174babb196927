-- The inbox and its parsing views. Ingest inserts messages as they are; ClickHouse parses each once, judges it,
-- and routes it: inbox -> judged_* (all Null engines, nothing is stored on the way) -> playback_events, videos,
-- rejected_events. The rules are those of retention_platform/contract.py; a test holds the two together.
-- `body` empties messages over 64 KiB, so that a hostile one is never parsed, and those that begin with a byte order
-- mark, which JSON forbids and this parser lets pass. `j` holds each field's value as JSON again; the parser writes
-- integers beyond 64 bits as strings, which the rule for strings tells from true ones by looking for them in `body`.

create table if not exists raw.inbox
(
    log_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    message_time DateTime64(3, 'UTC'),
    key String,
    payload String
)
engine = Null
comment 'Where ingest inserts messages: topic, place and raw bytes. Stores nothing itself.';

create table if not exists raw.judged_events
(
    reason String,
    event_id UUID,
    event_type LowCardinality(String),
    event_time DateTime64(3, 'UTC'),
    session_id String,
    viewer_id String,
    video_id String,
    position_ms Int64,
    played_from_ms Nullable(Int64),
    played_to_ms Nullable(Int64),
    seek_from_ms Nullable(Int64),
    duration_ms Nullable(Int64),
    playback_rate Float64,
    device_type LowCardinality(String),
    os LowCardinality(String),
    browser LowCardinality(String),
    country LowCardinality(String),
    traffic_source LowCardinality(String),
    player LowCardinality(String),
    is_live Bool,
    sent_at Nullable(DateTime64(3, 'UTC')),
    log_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    message_time DateTime64(3, 'UTC'),
    key String,
    payload String
)
engine = Null;

create materialized view if not exists raw.judge_events to raw.judged_events as
with
    if(length(payload) > 65536 or startsWith(payload, '\xEF\xBB\xBF'), '', payload) as body,
    cast(JSONExtractKeysAndValuesRaw(body), 'Map(String, String)') as j,
    JSONExtract(body, 'Tuple(event_id Nullable(String), event_type Nullable(String), event_time Nullable(String), session_id Nullable(String), viewer_id Nullable(String), video_id Nullable(String), device_type Nullable(String), os Nullable(String), browser Nullable(String), country Nullable(String), traffic_source Nullable(String), player Nullable(String), sent_at Nullable(String))') as e,
    multiIf(
        toInt64OrZero(j['event_time']) between 1 and 4102444799999,
        fromUnixTimestamp64Milli(toInt64OrZero(j['event_time']), 'UTC'),
        match(ifNull(e.event_time, ''), '^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$'),
        parseDateTime64BestEffortOrNull(ifNull(e.event_time, ''), 3, 'UTC'),
        null
    ) as event_time_parsed,
    multiIf(
        toInt64OrZero(j['sent_at']) between 1 and 4102444799999,
        fromUnixTimestamp64Milli(toInt64OrZero(j['sent_at']), 'UTC'),
        match(ifNull(e.sent_at, ''), '^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$'),
        parseDateTime64BestEffortOrNull(ifNull(e.sent_at, ''), 3, 'UTC'),
        null
    ) as sent_at_parsed
select
    multiIf(
        empty(payload), 'message: empty',
        length(payload) > 65536, 'message: over 64 KiB',
        empty(j) and not isValidJSON(body), 'message: not JSON',
        empty(j) and JSONType(body) != 'Object', 'message: not a JSON object',
        j['schema_version'] in ('', 'null'), 'schema_version: missing',
        j['schema_version'] != '1', 'schema_version: must be 1',
        j['event_id'] in ('', 'null'), 'event_id: missing',
        (not startsWith(j['event_id'], '"') or (position(body, j['event_id']) = 0 and match(j['event_id'], '^"-?[0-9]{19,}"$'))), 'event_id: not a string',
        isNull(toUUIDOrNull(ifNull(e.event_id, ''))) or not match(ifNull(e.event_id, ''), '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'), 'event_id: not a UUID',
        j['event_type'] in ('', 'null'), 'event_type: missing',
        (not startsWith(j['event_type'], '"') or (position(body, j['event_type']) = 0 and match(j['event_type'], '^"-?[0-9]{19,}"$'))), 'event_type: not a string',
        e.event_type not in ('play', 'pause', 'seek', 'heartbeat', 'rate_change', 'buffer_start', 'buffer_end', 'ended', 'exit', 'error'), 'event_type: not a type of the contract',
        j['event_time'] in ('', 'null'), 'event_time: missing',
        isNull(event_time_parsed), 'event_time: not an ISO 8601 time or epoch milliseconds',
        (event_time_parsed < toDateTime64('2000-01-01 00:00:00', 3, 'UTC') or event_time_parsed >= toDateTime64('2100-01-01 00:00:00', 3, 'UTC')), 'event_time: out of range 2000-01-01 to 2100-01-01',
        message_time > toDateTime64('2000-01-01 00:00:00', 3, 'UTC') and event_time_parsed > message_time + interval 24 hour, 'event_time: more than 24 h ahead of the broker''s clock',
        j['session_id'] in ('', 'null'), 'session_id: missing',
        (not startsWith(j['session_id'], '"') or (position(body, j['session_id']) = 0 and match(j['session_id'], '^"-?[0-9]{19,}"$'))), 'session_id: not a string',
        empty(e.session_id), 'session_id: empty',
        lengthUTF8(ifNull(e.session_id, '')) > 256, 'session_id: over 256 characters',
        j['viewer_id'] in ('', 'null'), 'viewer_id: missing',
        (not startsWith(j['viewer_id'], '"') or (position(body, j['viewer_id']) = 0 and match(j['viewer_id'], '^"-?[0-9]{19,}"$'))), 'viewer_id: not a string',
        empty(e.viewer_id), 'viewer_id: empty',
        lengthUTF8(ifNull(e.viewer_id, '')) > 256, 'viewer_id: over 256 characters',
        j['video_id'] in ('', 'null'), 'video_id: missing',
        (not startsWith(j['video_id'], '"') or (position(body, j['video_id']) = 0 and match(j['video_id'], '^"-?[0-9]{19,}"$'))), 'video_id: not a string',
        empty(e.video_id), 'video_id: empty',
        lengthUTF8(ifNull(e.video_id, '')) > 256, 'video_id: over 256 characters',
        j['position_ms'] in ('', 'null'), 'position_ms: missing',
        isNull(toInt64OrNull(j['position_ms'])), 'position_ms: not an integer',
        not (toInt64OrZero(j['position_ms']) between 0 and 604800000), 'position_ms: out of range 0 to 604800000',
        j['played_from_ms'] not in ('', 'null') and isNull(toInt64OrNull(j['played_from_ms'])), 'played_from_ms: not an integer',
        j['played_from_ms'] not in ('', 'null') and not (toInt64OrZero(j['played_from_ms']) between -1000000000000 and 1000000000000), 'played_from_ms: out of range -1000000000000 to 1000000000000',
        j['played_to_ms'] not in ('', 'null') and isNull(toInt64OrNull(j['played_to_ms'])), 'played_to_ms: not an integer',
        j['played_to_ms'] not in ('', 'null') and not (toInt64OrZero(j['played_to_ms']) between -1000000000000 and 1000000000000), 'played_to_ms: out of range -1000000000000 to 1000000000000',
        j['seek_from_ms'] not in ('', 'null') and isNull(toInt64OrNull(j['seek_from_ms'])), 'seek_from_ms: not an integer',
        j['seek_from_ms'] not in ('', 'null') and not (toInt64OrZero(j['seek_from_ms']) between 0 and 604800000), 'seek_from_ms: out of range 0 to 604800000',
        j['duration_ms'] not in ('', 'null') and isNull(toInt64OrNull(j['duration_ms'])), 'duration_ms: not an integer',
        j['duration_ms'] not in ('', 'null') and not (toInt64OrZero(j['duration_ms']) between 1 and 604800000), 'duration_ms: out of range 1 to 604800000',
        j['playback_rate'] not in ('', 'null') and isNull(toFloat64OrNull(j['playback_rate'])), 'playback_rate: not a number',
        j['playback_rate'] not in ('', 'null') and not (toFloat64OrZero(j['playback_rate']) > 0 and toFloat64OrZero(j['playback_rate']) <= 16), 'playback_rate: not above 0 and at most 16',
        j['device_type'] not in ('', 'null') and (not startsWith(j['device_type'], '"') or (position(body, j['device_type']) = 0 and match(j['device_type'], '^"-?[0-9]{19,}"$'))), 'device_type: not a string',
        lengthUTF8(ifNull(e.device_type, '')) > 256, 'device_type: over 256 characters',
        j['os'] not in ('', 'null') and (not startsWith(j['os'], '"') or (position(body, j['os']) = 0 and match(j['os'], '^"-?[0-9]{19,}"$'))), 'os: not a string',
        lengthUTF8(ifNull(e.os, '')) > 256, 'os: over 256 characters',
        j['browser'] not in ('', 'null') and (not startsWith(j['browser'], '"') or (position(body, j['browser']) = 0 and match(j['browser'], '^"-?[0-9]{19,}"$'))), 'browser: not a string',
        lengthUTF8(ifNull(e.browser, '')) > 256, 'browser: over 256 characters',
        j['country'] not in ('', 'null') and (not startsWith(j['country'], '"') or (position(body, j['country']) = 0 and match(j['country'], '^"-?[0-9]{19,}"$'))), 'country: not a string',
        lengthUTF8(ifNull(e.country, '')) > 256, 'country: over 256 characters',
        j['traffic_source'] not in ('', 'null') and (not startsWith(j['traffic_source'], '"') or (position(body, j['traffic_source']) = 0 and match(j['traffic_source'], '^"-?[0-9]{19,}"$'))), 'traffic_source: not a string',
        lengthUTF8(ifNull(e.traffic_source, '')) > 256, 'traffic_source: over 256 characters',
        j['player'] not in ('', 'null') and (not startsWith(j['player'], '"') or (position(body, j['player']) = 0 and match(j['player'], '^"-?[0-9]{19,}"$'))), 'player: not a string',
        lengthUTF8(ifNull(e.player, '')) > 256, 'player: over 256 characters',
        j['is_live'] not in ('', 'null', 'true', 'false'), 'is_live: not true or false',
        j['sent_at'] not in ('', 'null') and isNull(sent_at_parsed), 'sent_at: not an ISO 8601 time or epoch milliseconds',
        j['sent_at'] not in ('', 'null') and (sent_at_parsed < toDateTime64('2000-01-01 00:00:00', 3, 'UTC') or sent_at_parsed >= toDateTime64('2100-01-01 00:00:00', 3, 'UTC')), 'sent_at: out of range 2000-01-01 to 2100-01-01',
        j['played_from_ms'] in ('', 'null') and j['played_to_ms'] not in ('', 'null'), 'played_from_ms: missing while played_to_ms is given',
        j['played_to_ms'] in ('', 'null') and j['played_from_ms'] not in ('', 'null'), 'played_to_ms: missing while played_from_ms is given',
        ''
    ) as reason,
    toUUIDOrZero(ifNull(e.event_id, '')) as event_id,
    ifNull(e.event_type, '') as event_type,
    ifNull(event_time_parsed, toDateTime64('2000-01-01 00:00:00', 3, 'UTC')) as event_time,
    ifNull(e.session_id, '') as session_id,
    ifNull(e.viewer_id, '') as viewer_id,
    ifNull(e.video_id, '') as video_id,
    toInt64OrZero(j['position_ms']) as position_ms,
    toInt64OrNull(j['played_from_ms']) as played_from_ms,
    toInt64OrNull(j['played_to_ms']) as played_to_ms,
    toInt64OrNull(j['seek_from_ms']) as seek_from_ms,
    toInt64OrNull(j['duration_ms']) as duration_ms,
    toFloat64OrDefault(j['playback_rate'], 1.) as playback_rate,
    ifNull(e.device_type, '') as device_type,
    ifNull(e.os, '') as os,
    ifNull(e.browser, '') as browser,
    ifNull(e.country, '') as country,
    ifNull(e.traffic_source, '') as traffic_source,
    ifNull(e.player, '') as player,
    j['is_live'] = 'true' as is_live,
    sent_at_parsed as sent_at,
    log_id,
    topic,
    partition,
    offset,
    message_time,
    key,
    payload
from raw.inbox
where topic = 'playback_events';

create materialized view if not exists raw.store_events to raw.playback_events as
select
    event_id, event_type, event_time, session_id, viewer_id, video_id, position_ms, played_from_ms,
    played_to_ms, seek_from_ms, duration_ms, playback_rate, device_type, os, browser, country, traffic_source,
    player, is_live, sent_at, log_id, topic, partition, offset, now64(3, 'UTC') as ingested_at
from raw.judged_events
where reason = '';

create materialized view if not exists raw.reject_events to raw.rejected_events as
select
    log_id, topic, partition, offset, message_time, key, payload,
    splitByString(': ', reason)[1] as field, reason, now64(3, 'UTC') as rejected_at
from raw.judged_events
where reason != '';

create table if not exists raw.judged_videos
(
    reason String,
    video_id String,
    title String,
    duration_ms Nullable(Int64),
    category LowCardinality(String),
    published_at Nullable(DateTime64(3, 'UTC')),
    chapters Array(Tuple(start_ms Int64, title String)),
    updated_at DateTime64(3, 'UTC'),
    log_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    message_time DateTime64(3, 'UTC'),
    key String,
    payload String
)
engine = Null;

create materialized view if not exists raw.judge_videos to raw.judged_videos as
with
    if(length(payload) > 65536 or startsWith(payload, '\xEF\xBB\xBF'), '', payload) as body,
    cast(JSONExtractKeysAndValuesRaw(body), 'Map(String, String)') as j,
    JSONExtract(body, 'Tuple(video_id Nullable(String), title Nullable(String), category Nullable(String), updated_at Nullable(String), published_at Nullable(String))') as e,
    JSONExtractArrayRaw(body, 'chapters') as chapters_raw,
    multiIf(
        toInt64OrZero(j['updated_at']) between 1 and 4102444799999,
        fromUnixTimestamp64Milli(toInt64OrZero(j['updated_at']), 'UTC'),
        match(ifNull(e.updated_at, ''), '^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$'),
        parseDateTime64BestEffortOrNull(ifNull(e.updated_at, ''), 3, 'UTC'),
        null
    ) as updated_at_parsed,
    multiIf(
        toInt64OrZero(j['published_at']) between 1 and 4102444799999,
        fromUnixTimestamp64Milli(toInt64OrZero(j['published_at']), 'UTC'),
        match(ifNull(e.published_at, ''), '^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$'),
        parseDateTime64BestEffortOrNull(ifNull(e.published_at, ''), 3, 'UTC'),
        null
    ) as published_at_parsed
select
    multiIf(
        empty(payload), 'message: empty',
        length(payload) > 65536, 'message: over 64 KiB',
        empty(j) and not isValidJSON(body), 'message: not JSON',
        empty(j) and JSONType(body) != 'Object', 'message: not a JSON object',
        j['video_id'] in ('', 'null'), 'video_id: missing',
        (not startsWith(j['video_id'], '"') or (position(body, j['video_id']) = 0 and match(j['video_id'], '^"-?[0-9]{19,}"$'))), 'video_id: not a string',
        empty(e.video_id), 'video_id: empty',
        lengthUTF8(ifNull(e.video_id, '')) > 256, 'video_id: over 256 characters',
        j['title'] in ('', 'null'), 'title: missing',
        (not startsWith(j['title'], '"') or (position(body, j['title']) = 0 and match(j['title'], '^"-?[0-9]{19,}"$'))), 'title: not a string',
        empty(e.title), 'title: empty',
        lengthUTF8(ifNull(e.title, '')) > 1000, 'title: over 1000 characters',
        j['updated_at'] in ('', 'null'), 'updated_at: missing',
        isNull(updated_at_parsed), 'updated_at: not an ISO 8601 time or epoch milliseconds',
        (updated_at_parsed < toDateTime64('2000-01-01 00:00:00', 3, 'UTC') or updated_at_parsed >= toDateTime64('2100-01-01 00:00:00', 3, 'UTC')), 'updated_at: out of range 2000-01-01 to 2100-01-01',
        j['duration_ms'] not in ('', 'null') and isNull(toInt64OrNull(j['duration_ms'])), 'duration_ms: not an integer',
        j['duration_ms'] not in ('', 'null') and not (toInt64OrZero(j['duration_ms']) between 1 and 604800000), 'duration_ms: out of range 1 to 604800000',
        j['category'] not in ('', 'null') and (not startsWith(j['category'], '"') or (position(body, j['category']) = 0 and match(j['category'], '^"-?[0-9]{19,}"$'))), 'category: not a string',
        lengthUTF8(ifNull(e.category, '')) > 256, 'category: over 256 characters',
        j['published_at'] not in ('', 'null') and isNull(published_at_parsed), 'published_at: not an ISO 8601 time or epoch milliseconds',
        j['published_at'] not in ('', 'null') and (published_at_parsed < toDateTime64('2000-01-01 00:00:00', 3, 'UTC') or published_at_parsed >= toDateTime64('2100-01-01 00:00:00', 3, 'UTC')), 'published_at: out of range 2000-01-01 to 2100-01-01',
        j['chapters'] not in ('', 'null') and not startsWith(j['chapters'], '['), 'chapters: not a list',
        length(chapters_raw) > 1000, 'chapters: over 1000 chapters',
        arrayExists(c -> isNull(toInt64OrNull(JSONExtractRaw(c, 'start_ms'))) or not (toInt64OrZero(JSONExtractRaw(c, 'start_ms')) between 0 and 604800000), chapters_raw), 'chapters: a start_ms is missing or out of range 0 to 604800000',
        arrayExists(c -> not startsWith(JSONExtractRaw(c, 'title'), '"') or not (lengthUTF8(JSONExtractString(c, 'title')) between 1 and 1000), chapters_raw), 'chapters: a title is missing, empty, no string or over 1000 characters',
        ''
    ) as reason,
    ifNull(e.video_id, '') as video_id,
    ifNull(e.title, '') as title,
    toInt64OrNull(j['duration_ms']) as duration_ms,
    ifNull(e.category, '') as category,
    published_at_parsed as published_at,
    arraySort(
        arrayMap(
            c -> cast((toInt64OrZero(JSONExtractRaw(c, 'start_ms')), JSONExtractString(c, 'title')), 'Tuple(start_ms Int64, title String)'),
            chapters_raw
        )
    ) as chapters,
    ifNull(updated_at_parsed, toDateTime64('2000-01-01 00:00:00', 3, 'UTC')) as updated_at,
    log_id,
    topic,
    partition,
    offset,
    message_time,
    key,
    payload
from raw.inbox
where topic = 'videos';

create materialized view if not exists raw.store_videos to raw.videos as
select
    video_id, title, duration_ms, category, published_at, chapters, updated_at, log_id, topic, partition, offset,
    now64(3, 'UTC') as ingested_at
from raw.judged_videos
where reason = '';

create materialized view if not exists raw.reject_videos to raw.rejected_events as
select
    log_id, topic, partition, offset, message_time, key, payload,
    splitByString(': ', reason)[1] as field, reason, now64(3, 'UTC') as rejected_at
from raw.judged_videos
where reason != '';
