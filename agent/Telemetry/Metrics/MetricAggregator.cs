using System.Collections.Concurrent;
using System.Diagnostics.Metrics;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Keeps the running values of one meter's instruments for the text formats. Recording is lock-free and does not
/// allocate once a series exists, so a scrape never holds up the loop; scrapes exclude only one another.
/// </summary>
internal sealed class MetricAggregator : IDisposable
{
    private readonly MeterListener listener = new();
    private readonly Lock scraping = new();
    private readonly ConcurrentDictionary<Instrument, MetricFamily> families = new();
    private readonly ExpositionWriter writer = new();
    private int generation;

    public MetricAggregator(Meter meter)
    {
        listener.InstrumentPublished = (instrument, self) =>
        {
            // By reference: another meter of the same name (another agent in the same test process) is not ours.
            if (ReferenceEquals(instrument.Meter, meter))
                self.EnableMeasurementEvents(instrument, families.GetOrAdd(instrument, static i => new MetricFamily(i)));
        };
        listener.SetMeasurementEventCallback<long>((_, value, tags, state) => ((MetricFamily)state!).Record(value, tags, generation));
        listener.SetMeasurementEventCallback<double>((_, value, tags, state) => ((MetricFamily)state!).Record(value, tags, generation));
        listener.Start();
    }

    /// <summary>Brings a series into being without an observation, which a histogram cannot record as zero.</summary>
    public void Ensure(Instrument instrument, params ReadOnlySpan<KeyValuePair<string, object?>> tags) => families[instrument].Find(tags);

    /// <summary>All instruments' values in a text format, UTF-8.</summary>
    public byte[] Scrape(ExpositionFormat format)
    {
        lock (scraping)
        {
            generation++;
            listener.RecordObservableInstruments();
            return writer.Write(families.Values.OrderBy(static f => f.Name, StringComparer.Ordinal), format, generation);
        }
    }

    public void Dispose() => listener.Dispose();
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

    private readonly ConcurrentDictionary<LabelValues, MetricSeries> series = new();
    private readonly double[] boundaries;
    private MetricSeries[] sorted = [];

    public MetricFamily(Instrument instrument)
    {
        Name = instrument.Name;
        Help = instrument.Description ?? "";
        Kind = instrument switch
        {
            Counter<long> or Counter<double> => MetricKind.Counter,
            Histogram<double> => MetricKind.Histogram,
            ObservableGauge<long> or ObservableGauge<double> => MetricKind.Gauge,
            _ => throw new NotSupportedException($"instrument {instrument.Name} is of a kind that the exposition does not know"),
        };
        boundaries = [.. (instrument as Histogram<double>)?.Advice?.HistogramBucketBoundaries ?? []];
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
    public ReadOnlySpan<double> Boundaries => boundaries;

    public void Record(double value, ReadOnlySpan<KeyValuePair<string, object?>> tags, int generation)
    {
        if (Find(tags) is not { } found)
            return;
        switch (Kind)
        {
            case MetricKind.Counter:
                found.Add(value);
                break;
            case MetricKind.Gauge:
                found.Set(value, generation);
                break;
            case MetricKind.Histogram:
                found.Observe(value, boundaries);
                break;
        }
    }

    /// <summary>The series with these labels, made if need be; null past the limit.</summary>
    public MetricSeries? Find(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var key = LabelValues.From(tags);
        if (series.TryGetValue(key, out var found))
            return found;
        if (series.Count >= MostSeries)
            return null;
        return series.GetOrAdd(key, new MetricSeries(ExpositionWriter.Labels(tags), Kind == MetricKind.Histogram ? boundaries.Length + 1 : 0));
    }

    /// <summary>
    /// The series to show, in a stable order. A gauge's series that was not reported in this scrape is gone (an
    /// upstream removed by a reload, a timeout no longer known) and is dropped.
    /// </summary>
    public MetricSeries[] Current(int generation)
    {
        if (Kind == MetricKind.Gauge)
        {
            foreach (var (key, candidate) in series)
            {
                if (candidate.Generation != generation)
                    series.TryRemove(key, out _);
            }
        }

        if (sorted.Length != series.Count || Kind == MetricKind.Gauge)
            sorted = [.. series.Values.OrderBy(static s => s.Order, StringComparer.Ordinal)];
        return sorted;
    }

    /// <summary>Label values in the order in which the instrument is called, which is always the same for one instrument.</summary>
    private readonly record struct LabelValues(string? First, string? Second, string? Third)
    {
        public static LabelValues From(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            if (tags.Length > 3)
                throw new NotSupportedException("no instrument has more than three labels");
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
    private readonly long[] counts = new long[buckets];
    private double value;

    public ReadOnlySpan<byte> Labels => labels;
    public string Order { get; } = System.Text.Encoding.UTF8.GetString(labels);

    /// <summary>Number of the scrape in which a gauge was last set.</summary>
    public int Generation { get; private set; }

    /// <summary>A counter's or gauge's value; a histogram's sum.</summary>
    public double Value => Volatile.Read(ref value);

    public long Bucket(int index) => Volatile.Read(ref counts[index]);

    public void Set(double newValue, int generation)
    {
        Volatile.Write(ref value, newValue);
        Generation = generation;
    }

    public void Add(double delta)
    {
        var seen = Volatile.Read(ref value);
        while (true)
        {
            var before = Interlocked.CompareExchange(ref value, seen + delta, seen);
            if (before.Equals(seen))
                return;
            seen = before;
        }
    }

    public void Observe(double observed, double[] boundaries)
    {
        var index = 0;
        while (index < boundaries.Length && observed > boundaries[index])
            index++;
        Interlocked.Increment(ref counts[index]);
        Add(observed);
    }
}
