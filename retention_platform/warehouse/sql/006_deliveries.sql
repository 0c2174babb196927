-- How often events were stored, counted as they come: of rows with one event_id ClickHouse keeps one, at the latest
-- when it merges, so raw.playback_events cannot tell how many there were. The same tokens that keep a repeated batch
-- out of raw keep it out of here.

create table if not exists raw.deliveries
(
    video_id String codec(ZSTD(1)),
    day Date comment 'UTC day of the event',
    messages UInt64 comment 'messages stored, repetitions by players included',
    late_messages UInt64 comment 'of them, stored over an hour after they happened by the player''s clock'
)
engine = SummingMergeTree
order by (video_id, day)
settings non_replicated_deduplication_window = 10000
comment 'Messages stored as events, by video and day of the event. Sum them: rows of one key are added up by merges.';

-- What was stored before there was this table, once.
insert into raw.deliveries
select
    video_id,
    toDate(event_time) as day,
    count() as messages,
    countIf(ingested_at > event_time + toIntervalHour(1)) as late_messages
from raw.playback_events
where not exists (select 1 from raw.deliveries)
group by video_id, day;

create materialized view if not exists raw.count_deliveries to raw.deliveries as
select
    video_id,
    toDate(event_time) as day,
    count() as messages,
    countIf(now64(3, 'UTC') > event_time + toIntervalHour(1)) as late_messages
from raw.judged_events
where reason = ''
group by video_id, day;
