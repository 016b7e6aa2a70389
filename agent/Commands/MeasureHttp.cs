using System.Globalization;
using System.Text.Json;
using Sidecar.Agent.Measurement;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Commands;

/// <summary><c>measure --http</c>: how long a silent response survives the way to a slow URL, and who ends it.</summary>
internal static class MeasureHttp
{
    /// <summary>An answer that comes sooner was not slow, and says nothing.</summary>
    private static readonly TimeSpan AtOnce = TimeSpan.FromSeconds(1);

    /// <summary>The URL, or why it cannot be asked for.</summary>
    /// <exception cref="MeasurementException">It is none.</exception>
    public static Uri Parse(string text)
    {
        if (!Uri.TryCreate(text, UriKind.Absolute, out var url) || (url.Scheme != Uri.UriSchemeHttp && url.Scheme != Uri.UriSchemeHttps) || url.Host.Length == 0)
        {
            throw new MeasurementException("--http: expected a URL, such as http://www.example.org/slow?seconds=600");
        }

        return url.UserInfo.Length == 0 ? url : throw new MeasurementException("--http: user and password are not sent; take a URL that needs none");
    }

    public static async Task<int> ExecuteAsync(CommandEnvironment environment, Uri url, TimeSpan max, bool json, CancellationToken stop)
    {
        var isTerminal = !Console.IsErrorRedirected;
        if (!json)
        {
            environment.Error.WriteLine($"asking for {SilentResponse.UrlOf(url)} once, and waiting up to {Duration.Format(max)}; Ctrl-C ends it");
        }

        Action<TimeSpan>? progress = json || !isTerminal ? null : silent => environment.Error.Write($"\rsilent for {Duration.ForPeople(silent)}\u001b[K");
        var report = await SilentResponse.RunAsync(url, max, progress, stop);
        if (progress is not null)
        {
            environment.Error.Write("\r\u001b[K");
        }

        if (json)
        {
            environment.Out.WriteLine(JsonSerializer.Serialize(SilentResponseDocument.From(report), SilentResponseJson.Default.SilentResponseDocument));
        }
        else
        {
            Write(environment.Out, report);
        }

        return ExitCodes.Ok;
    }

    /// <summary>The result for people.</summary>
    internal static void Write(TextWriter output, SilentResponseReport report)
    {
        var silent = string.Create(CultureInfo.InvariantCulture, $"{report.Silent.TotalSeconds:0.0}s");
        var by = report.Server is null ? "" : $" (it calls itself {report.Server})";
        output.WriteLine($"{report.Url} at {report.Address}");
        output.WriteLine(report.End switch
        {
            ResponseEnd.Answer when report.Silent < AtOnce => $"answered {report.Status} at once: the URL is not slow, so nothing was measured",
            ResponseEnd.Answer => $"answered {report.Status} after {silent} of silence{by}: nothing on the way ends a response within that time",
            ResponseEnd.Status => $"ended after {silent} of silence by an answer {report.Status}{by}",
            ResponseEnd.Fin => $"ended after {silent} of silence: the connection was closed (FIN){(report.Status is null ? " without an answer" : " in the middle of the answer")}",
            ResponseEnd.Reset => $"ended after {silent} of silence: the connection was reset (RST)",
            ResponseEnd.Silence => $"forgotten: {silent} of silence, and the connection does not answer any more",
            _ => $"no end within {silent} of silence{(report.Interrupted ? "; ended before it was finished" : "; the connection lives")}",
        });
        if (report.End is ResponseEnd.Status or ResponseEnd.Fin or ResponseEnd.Reset)
        {
            output.WriteLine($"which setting that is: conn-sidecar audit --balancer-timeout {Math.Max(1, Math.Round(report.Silent.TotalSeconds)).ToString(CultureInfo.InvariantCulture)}s (where the balancer stands elsewhere)");
        }
    }
}
