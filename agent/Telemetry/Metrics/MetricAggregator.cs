using System.Collections.Concurrent;
using System.Diagnostics.Metrics;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Keeps the running values of one meter's instruments for the text formats. Recording is lock-free and does not
/// allocate once a series exists, so a scrape never holds up the loop; scrapes exclude only one another.
/// </summary>
internal sealed class MetricAggregator : IDisposable
{
    private readonly MeterListener _listener = new();
    private readonly Lock _scraping = new();
    private readonly ConcurrentDictionary<Instrument, MetricFamily> _families = new();
    private readonly ExpositionWriter _writer = new();
    private int _generation;

    public MetricAggregator(Meter meter)
    {
        _listener.InstrumentPublished = (instrument, self) =>
        {
            // By reference: another meter of the same name (another agent in the same test process) is not ours.
            if (ReferenceEquals(instrument.Meter, meter))
            {
                self.EnableMeasurementEvents(instrument, _families.GetOrAdd(instrument, static i => new MetricFamily(i)));
            }
        };
        _listener.SetMeasurementEventCallback<long>((_, value, tags, state) => ((MetricFamily)state!).Record(value, tags, _generation));
        _listener.SetMeasurementEventCallback<double>((_, value, tags, state) => ((MetricFamily)state!).Record(value, tags, _generation));
        _listener.Start();
    }

    /// <summary>Brings a series into being without an observation, which a histogram cannot record as zero.</summary>
    public void Ensure(Instrument instrument, params ReadOnlySpan<KeyValuePair<string, object?>> tags) => _families[instrument].Find(tags);

    /// <summary>Ends a series: what it counted is no more.</summary>
    public void Forget(Instrument instrument, params ReadOnlySpan<KeyValuePair<string, object?>> tags) => _families[instrument].Forget(tags);

    /// <summary>Ends the series whose first label has none of these values.</summary>
    public void Keep(Instrument instrument, IReadOnlySet<string> values) => _families[instrument].Keep(values);

    /// <summary>All instruments' values in a text format, UTF-8.</summary>
    public byte[] Scrape(ExpositionFormat format)
    {
        lock (_scraping)
        {
            _generation++;
            _listener.RecordObservableInstruments();
            return _writer.Write(_families.Values.OrderBy(static f => f.Name, StringComparer.Ordinal), format, _generation);
        }
    }

    public void Dispose() => _listener.Dispose();
}

internal enum MetricKind
{
    Counter,
    Gauge,
    Histogram,
}

/// <summary>One instrument and its series.</summary>
internal sealed class MetricFamily
{
    // Labels come from the configuration; the limit only keeps a mistake from becoming a memory leak.
    private const int MostSeries = 20_000;

    private readonly ConcurrentDictionary<LabelValues, MetricSeries> _series = new();
    private readonly double[] _boundaries;
    private readonly bool _isSet;
    private MetricSeries[] _sorted = [];
    private int _removals;
    private int _removalsSorted;

    public MetricFamily(Instrument instrument)
    {
        Name = instrument.Name;
        Help = instrument.Description ?? "";
        Kind = instrument switch
        {
            Counter<long> or Counter<double> or ObservableCounter<double> => MetricKind.Counter,
            Histogram<double> => MetricKind.Histogram,
            ObservableGauge<long> or ObservableGauge<double> => MetricKind.Gauge,
            _ => throw new NotSupportedException($"instrument {instrument.Name} is of a kind that the exposition does not know"),
        };
        _boundaries = [.. (instrument as Histogram<double>)?.Advice?.HistogramBucketBoundaries ?? []];
        _isSet = instrument.IsObservable;
        IsInfo = Kind == MetricKind.Gauge && Name.EndsWith("_info", StringComparison.Ordinal);
        Unit = Name.EndsWith("_seconds", StringComparison.Ordinal) ? "seconds" : null;
    }

    public string Name { get; }
    public string Help { get; }
    public MetricKind Kind { get; }

    /// <summary>A gauge that only carries labels: OpenMetrics has a type of its own for it.</summary>
    public bool IsInfo { get; }

    /// <summary>Base unit where the name ends in one, or null.</summary>
    public string? Unit { get; }
    public ReadOnlySpan<double> Boundaries => _boundaries;

    public void Record(double value, ReadOnlySpan<KeyValuePair<string, object?>> tags, int generation)
    {
        if (Find(tags) is not { } found)
        {
            return;
        }

        switch (Kind)
        {
            case MetricKind.Counter when !_isSet:
                found.Add(value);
                break;
            case MetricKind.Counter or MetricKind.Gauge:
                found.Set(value, generation);
                break;
            case MetricKind.Histogram:
                found.Observe(value, _boundaries);
                break;
        }
    }

    /// <summary>The series with these labels, made if need be; null past the limit.</summary>
    public MetricSeries? Find(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var key = LabelValues.From(tags);
        if (_series.TryGetValue(key, out var found))
        {
            return found;
        }

        if (_series.Count >= MostSeries)
        {
            return null;
        }

        return _series.GetOrAdd(key, new MetricSeries(ExpositionWriter.Labels(tags), Kind == MetricKind.Histogram ? _boundaries.Length + 1 : 0));
    }

    /// <summary>Ends the series with these labels.</summary>
    public void Forget(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        if (_series.TryRemove(LabelValues.From(tags), out _))
        {
            Interlocked.Increment(ref _removals);
        }
    }

    /// <summary>Ends the series whose first label has none of these values.</summary>
    public void Keep(IReadOnlySet<string> values)
    {
        foreach (var key in _series.Keys)
        {
            if ((key.First is null || !values.Contains(key.First)) && _series.TryRemove(key, out _))
            {
                Interlocked.Increment(ref _removals);
            }
        }
    }

    /// <summary>
    /// The series to show, in a stable order. A gauge's series that was not reported in this scrape is gone (an
    /// upstream removed by a reload, a timeout no longer known) and is dropped.
    /// </summary>
    public MetricSeries[] Current(int generation)
    {
        if (Kind == MetricKind.Gauge)
        {
            foreach (var (key, candidate) in _series)
            {
                if (candidate.Generation != generation)
                {
                    _series.TryRemove(key, out _);
                }
            }
        }

        var removed = Volatile.Read(ref _removals);
        if (_sorted.Length != _series.Count || removed != _removalsSorted || Kind == MetricKind.Gauge)
        {
            _sorted = [.. _series.Values.OrderBy(static s => s.Order, StringComparer.Ordinal)];
        }

        _removalsSorted = removed;
        return _sorted;
    }

    /// <summary>Label values in the order in which the instrument is called, which is always the same for one instrument.</summary>
    private readonly record struct LabelValues(string? First, string? Second, string? Third)
    {
        public static LabelValues From(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            if (tags.Length > 3)
            {
                throw new NotSupportedException("no instrument has more than three labels");
            }

            return new LabelValues(
                tags.Length > 0 ? (string?)tags[0].Value : null,
                tags.Length > 1 ? (string?)tags[1].Value : null,
                tags.Length > 2 ? (string?)tags[2].Value : null);
        }
    }
}

/// <summary>One series' running value.</summary>
/// <param name="labels">Rendered: <c>upstream="x",verdict="y"</c>, escaped, UTF-8.</param>
/// <param name="buckets">Number of histogram buckets with +Inf, or 0.</param>
internal sealed class MetricSeries(byte[] labels, int buckets)
{
    private readonly long[] _counts = new long[buckets];
    private double _value;

    public ReadOnlySpan<byte> Labels => labels;
    public string Order { get; } = System.Text.Encoding.UTF8.GetString(labels);

    /// <summary>Number of the scrape in which a gauge was last set.</summary>
    public int Generation { get; private set; }

    /// <summary>A counter's or gauge's value; a histogram's sum.</summary>
    public double Value => Volatile.Read(ref _value);

    public long Bucket(int index) => Volatile.Read(ref _counts[index]);

    public void Set(double newValue, int generation)
    {
        Volatile.Write(ref _value, newValue);
        Generation = generation;
    }

    public void Add(double delta)
    {
        var seen = Volatile.Read(ref _value);
        while (true)
        {
            var before = Interlocked.CompareExchange(ref _value, seen + delta, seen);
            if (before.Equals(seen))
            {
                return;
            }

            seen = before;
        }
    }

    public void Observe(double observed, double[] boundaries)
    {
        var index = 0;
        while (index < boundaries.Length && observed > boundaries[index])
        {
            index++;
        }

        Interlocked.Increment(ref _counts[index]);
        Add(observed);
    }
}
