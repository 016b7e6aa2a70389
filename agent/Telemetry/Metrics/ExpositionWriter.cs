using System.Buffers;
using System.Globalization;
using System.Text;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

internal enum ExpositionFormat
{
    /// <summary>Prometheus text format 0.0.4.</summary>
    PrometheusText,

    /// <summary>OpenMetrics 1.0.0.</summary>
    OpenMetrics,
}

/// <summary>
/// Writes metric families in the two text formats. This file and <see cref="MetricAggregator"/> are all there is
/// between the meter and <c>/metrics</c>; a client library can take their place without a change elsewhere.
/// Not thread-safe: the aggregator serialises.
/// </summary>
internal sealed class ExpositionWriter
{
    public const string PrometheusTextType = "text/plain; version=0.0.4; charset=utf-8";
    public const string OpenMetricsType = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    private readonly ArrayBufferWriter<byte> _buffer = new(16 * 1024);

    /// <summary>
    /// The format to answer an Accept header with: OpenMetrics where it is asked for by name and nothing is preferred
    /// to it, otherwise the Prometheus text format, which every scraper reads.
    /// </summary>
    public static ExpositionFormat Negotiate(string? accept)
    {
        var openMetrics = 0.0;
        var text = 0.0;
        foreach (var range in (accept ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            var parts = range.Split(';', StringSplitOptions.TrimEntries);
            var quality = 1.0;
            var version = "";
            foreach (var parameter in parts.AsSpan(1))
            {
                if (parameter.StartsWith("q=", StringComparison.OrdinalIgnoreCase))
                {
                    quality = double.TryParse(parameter.AsSpan(2), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var q) ? q : 0;
                }
                else if (parameter.StartsWith("version=", StringComparison.OrdinalIgnoreCase))
                {
                    version = parameter[8..].Trim('"');
                }
            }

            switch (parts[0].ToLowerInvariant())
            {
                case "application/openmetrics-text" when version is "" or "1.0.0":
                    openMetrics = Math.Max(openMetrics, quality);
                    break;
                case "text/plain" or "text/*" or "*/*":
                    text = Math.Max(text, quality);
                    break;
            }
        }

        return openMetrics > 0 && openMetrics >= text ? ExpositionFormat.OpenMetrics : ExpositionFormat.PrometheusText;
    }

    public static string ContentType(ExpositionFormat format) =>
        format == ExpositionFormat.OpenMetrics ? OpenMetricsType : PrometheusTextType;

    /// <summary>Label pairs as they stand between the braces, escaped, UTF-8.</summary>
    public static byte[] Labels(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var text = new StringBuilder();
        foreach (var (name, value) in tags)
        {
            if (text.Length > 0)
            {
                text.Append(',');
            }

            text.Append(name).Append("=\"").Append(Escape(Printable.Escape((string?)value ?? ""), quotes: true)).Append('"');
        }

        return Encoding.UTF8.GetBytes(text.ToString());
    }

    public byte[] Write(IEnumerable<MetricFamily> families, ExpositionFormat format, int generation)
    {
        _buffer.ResetWrittenCount();
        foreach (var family in families)
        {
            var series = family.Current(generation);
            if (series.Length > 0)
            {
                WriteFamily(family, series, format == ExpositionFormat.OpenMetrics);
            }
        }

        if (format == ExpositionFormat.OpenMetrics)
        {
            Append("# EOF\n"u8);
        }

        return _buffer.WrittenSpan.ToArray();
    }

    private void WriteFamily(MetricFamily family, MetricSeries[] series, bool openMetrics)
    {
        // The 0.0.4 format names the samples in its metadata; OpenMetrics the family, without the sample's suffix.
        var sample = family.Kind == MetricKind.Counter ? family.Name + "_total" : family.Name;
        var described = (openMetrics, family.IsInfo) switch
        {
            (true, true) => family.Name[..^"_info".Length],
            (true, false) => family.Name,
            _ => sample,
        };
        var type = family.Kind switch
        {
            MetricKind.Counter => "counter",
            MetricKind.Histogram => "histogram",
            _ => openMetrics && family.IsInfo ? "info" : "gauge",
        };
        Append($"# HELP {described} {Escape(family.Help, quotes: openMetrics)}\n");
        Append($"# TYPE {described} {type}\n");
        if (openMetrics && family.Unit is not null)
        {
            Append($"# UNIT {described} {family.Unit}\n");
        }

        foreach (var one in series)
        {
            if (family.Kind == MetricKind.Histogram)
            {
                WriteHistogram(family, one, openMetrics);
            }
            else
            {
                WriteSample(sample, one.Labels, default, one.Value);
            }
        }
    }

    private void WriteHistogram(MetricFamily family, MetricSeries series, bool openMetrics)
    {
        var cumulative = 0L;
        for (var i = 0; i <= family.Boundaries.Length; i++)
        {
            cumulative += series.Bucket(i);
            WriteSample(family.Name + "_bucket", series.Labels, i == family.Boundaries.Length ? "+Inf" : BoundaryText(family.Boundaries[i], openMetrics), cumulative);
        }

        // The count is the sum of the buckets just read, so that the two agree while observations go on.
        WriteSample(family.Name + "_sum", series.Labels, default, series.Value);
        WriteSample(family.Name + "_count", series.Labels, default, cumulative);
    }

    private void WriteSample(string name, ReadOnlySpan<byte> labels, string? boundary, double value)
    {
        Append(name);
        if (labels.Length > 0 || boundary is not null)
        {
            Append("{"u8);
            Append(labels);
            if (boundary is not null)
            {
                if (labels.Length > 0)
                {
                    Append(","u8);
                }

                Append("le=\""u8);
                Append(boundary);
                Append("\""u8);
            }

            Append("}"u8);
        }

        Append(" "u8);
        if (double.IsFinite(value))
        {
            value.TryFormat(_buffer.GetSpan(32), out var written, default, CultureInfo.InvariantCulture);
            _buffer.Advance(written);
        }
        else
        {
            Append(double.IsNaN(value) ? "NaN"u8 : value > 0 ? "+Inf"u8 : "-Inf"u8);
        }

        Append("\n"u8);
    }

    // OpenMetrics wants canonical floats in "le" (1.0, not 1), so that the label is the same from every exporter.
    private static string BoundaryText(double boundary, bool openMetrics)
    {
        var text = boundary.ToString(CultureInfo.InvariantCulture);
        return openMetrics && double.IsInteger(boundary) ? text + ".0" : text;
    }

    private static string Escape(string text, bool quotes)
    {
        if (text.AsSpan().IndexOfAny('\\', '\n', '"') < 0)
        {
            return text;
        }

        text = text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);
        return quotes ? text.Replace("\"", "\\\"", StringComparison.Ordinal) : text;
    }

    private void Append(string text) => Encoding.UTF8.GetBytes(text, _buffer);

    private void Append(ReadOnlySpan<byte> bytes) => _buffer.Write(bytes);
}
