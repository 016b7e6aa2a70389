using System.CommandLine;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Npgsql;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Measurement;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Commands;

/// <summary><c>measure</c>: finds out how long the path to an endpoint remembers an idle connection.</summary>
internal static class MeasureCommand
{
    public static Command Create(CommandEnvironment environment)
    {
        var endpoint = new Argument<string?>("endpoint") { Description = "HOST:PORT, such as 10.0.2.2:5432 or [fd00::1]:5432.", HelpName = "HOST:PORT", Arity = ArgumentArity.ZeroOrOne };
        var http = new Option<string?>("--http")
        {
            Description = "Instead of an endpoint: ask for this URL once, which must take its time to answer, and tell how long a silent response survives and who ends it.",
            HelpName = "URL",
        };
        var protocol = new Option<string>("--protocol")
        {
            Description = "What the endpoint speaks: tcp (no application data is sent) or postgresql (authenticated sessions; needs --dsn-file).",
            HelpName = "tcp|postgresql",
            DefaultValueFactory = _ => "tcp",
        };
        protocol.AcceptOnlyFromAmong("tcp", "postgresql");
        var dsnFile = new Option<string?>("--dsn-file") { Description = "File (mode 0600) with a connection string: Npgsql, libpq or postgresql://. Its host and port are not used.", HelpName = "FILE" };
        var defaults = new LadderSettings();
        var max = new Option<TimeSpan?>("--max")
        {
            Description = $"Longest gap to try, or silence to wait for with --http, such as 30s or 2h. Default: {Duration.Format(defaults.Max)}.",
            HelpName = "DURATION",
            CustomParser = result =>
            {
                if (result.Tokens.Count == 1 && Duration.TryParse(result.Tokens[0].Value, out var value) && value >= TimeSpan.FromSeconds(3))
                {
                    return value;
                }

                result.AddError("--max: expected a duration of 3s or more, such as 30s or 2h10m");
                return null;
            },
        };
        var precision = new Option<double?>("--precision")
        {
            Description = $"Wanted width of the result as a share of the timeout (never below one second). Default: {Percent(defaults.Precision)}.",
            HelpName = "PERCENT",
            CustomParser = result => Percentage(result, "--precision", 0.1, 50),
        };
        var share = new Option<double?>("--share")
        {
            Description = $"Share of the PostgreSQL server's free connection slots that may be used. Default: {Percent(MeasurementTarget.UsualSlotShare)}.",
            HelpName = "PERCENT",
            CustomParser = result => Percentage(result, "--share", 1, 100),
        };
        var payload = new Option<string?>("--payload")
        {
            Description = "Application data that does no harm to the endpoint (with --protocol tcp), such as 'PING\\r\\n'. Without it only keepalives are sent.",
            HelpName = "TEXT",
        };
        var json = new Option<bool>("--json") { Description = "For programs: one object." };
        var command = new Command("measure", "Find out how long the path to an endpoint remembers an idle connection, with connections of our own. Ctrl-C ends it and shows what was learnt.")
        {
            endpoint, http, protocol, dsnFile, max, precision, share, payload, json,
        };
        command.Validators.Add(result =>
        {
            if ((result.GetResult(endpoint) is { Tokens.Count: > 0 }) == (result.GetResult(http) is not null))
            {
                result.AddError("expected HOST:PORT or --http URL");
            }
        });
        command.SetAction(parsed =>
        {
            using var stop = new CancellationTokenSource();
            void OnSignal(PosixSignalContext context)
            {
                context.Cancel = true;
                stop.Cancel();
            }

            using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
            using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
            try
            {
                if (parsed.GetValue(http) is { } url)
                {
                    return MeasureHttp.ExecuteAsync(environment, MeasureHttp.Parse(url), parsed.GetValue(max) ?? defaults.Max, parsed.GetValue(json), stop.Token).GetAwaiter().GetResult();
                }

                var isPostgreSql = parsed.GetValue(protocol) == "postgresql";
                var targets = ResolveTargets(parsed.GetValue(endpoint)!, isPostgreSql, parsed.GetValue(dsnFile), parsed.GetValue(payload), parsed.GetValue(share) ?? MeasurementTarget.UsualSlotShare);
                var settings = defaults with { Max = parsed.GetValue(max) ?? defaults.Max, Precision = parsed.GetValue(precision) ?? defaults.Precision };
                return ExecuteAsync(environment, targets, settings, parsed.GetValue(json), stop.Token).GetAwaiter().GetResult();
            }
            catch (Exception e) when (e is MeasurementException or DsnFileException)
            {
                environment.Error.WriteLine(Printable.Escape(e.Message));
                return ExitCodes.Failure;
            }
        });
        return command;
    }

    /// <summary>Measures the first address of a name that can be reached, and says which ones were left out.</summary>
    private static async Task<int> ExecuteAsync(CommandEnvironment environment, IReadOnlyList<MeasurementTarget> targets, LadderSettings settings, bool json, CancellationToken stop)
    {
        var dead = new List<string>();
        for (var i = 0; ; i++)
        {
            try
            {
                var report = await MeasureAsync(environment, targets[i], settings, json, stop);
                if (i + 1 < targets.Count)
                {
                    dead.Add($"not measured: {string.Join(", ", targets.Skip(i + 1))}, {(i + 2 == targets.Count ? "another address" : "other addresses")} of {targets[i].Host}");
                }

                return Tell(environment, report with { Notes = [.. dead, .. report.Notes] }, json);
            }
            catch (MeasurementException e) when (i + 1 < targets.Count && !stop.IsCancellationRequested)
            {
                dead.Add(e.Message);
            }
        }
    }

    private static async Task<MeasurementReport> MeasureAsync(CommandEnvironment environment, MeasurementTarget target, LadderSettings settings, bool json, CancellationToken stop)
    {
        var progress = new ProgressLine(environment.Error, !Console.IsErrorRedirected, environment.Width);
        if (!json)
        {
            environment.Error.WriteLine($"measuring {target} with connections of our own, gaps up to {Duration.Format(settings.Max)}; Ctrl-C ends it and keeps what was learnt");
        }

        var report = await Ladder.RunAsync(target, settings, json ? null : progress.Show, learnt: null, stop);
        progress.Clear();
        return report;
    }

    private static int Tell(CommandEnvironment environment, MeasurementReport report, bool json)
    {
        if (json)
        {
            environment.Out.WriteLine(JsonSerializer.Serialize(MeasurementDocument.From(report), MeasurementJson.Default.MeasurementDocument));
        }
        else
        {
            Write(environment, report);
        }

        if (report.Failure is { } failure)
        {
            environment.Error.WriteLine(Printable.Escape(failure));
        }

        return report.Failure is null ? ExitCodes.Ok : ExitCodes.Failure;
    }

    /// <summary>The result for people.</summary>
    internal static void Write(CommandEnvironment environment, MeasurementReport report)
    {
        var output = environment.Out;
        foreach (var line in GapPicture.Draw(report.Gaps, Math.Min(environment.Width, 100)))
        {
            output.WriteLine(line);
        }

        output.WriteLine();
        output.WriteLine($"{report.Endpoint}: {Sentence(report)}");
        output.WriteLine($"class: {report.ClassName}");
        if (report.Upper is not null)
        {
            output.WriteLine($"kept alive by keepalives: {YesNo(report.KeepaliveRefreshes)}; by application data: {YesNo(report.PayloadRefreshes)}");
            if (report.ServerFirstPasses is { } passes)
            {
                output.WriteLine($"data from the server after the timeout: {(passes ? "arrives" : "is lost as well")}");
            }

            output.WriteLine($"lost at: {report.Hop ?? "not known"}{(report.HopReason is null ? "" : $" ({report.HopReason})")}");
        }

        foreach (var note in report.Notes)
        {
            output.WriteLine($"note: {note}");
        }

        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"took {Duration.ForPeople(report.Elapsed)}, {Quantity.Of(report.ConnectionsUsed, "connection")} and {Quantity.Of(report.FreshConnects, "short one")}{(report.Interrupted ? "; ended before it was finished" : "")}"));
        output.WriteLine();
        foreach (var line in Advice.ConfigurationLines(report))
        {
            output.WriteLine(line);
        }
    }

    private static string Sentence(MeasurementReport report) => report switch
    {
        { Upper: { } upper, Varies: true } => $"forgets at varying times (jitter), between {Precisely(report.Lower)} and {Precisely(upper)} of idling",
        { Varies: true } => $"forgets nothing within {Precisely(report.Lower)} of idling; longer gaps were lost and survived",
        { Upper: { } upper } when report.Lower > TimeSpan.Zero => $"forgets between {Precisely(report.Lower)} and {Precisely(upper)} of idling",
        { Upper: { } upper } => $"forgets within {Precisely(upper)} of idling",
        _ when report.Lower > TimeSpan.Zero => $"forgets nothing within {Precisely(report.Lower)} of idling",
        _ => "nothing was learnt",
    };

    private static string Precisely(TimeSpan value) => value.TotalSeconds < 100
        ? string.Create(CultureInfo.InvariantCulture, $"{value.TotalSeconds:0.0}s")
        : Duration.Format(TimeSpan.FromSeconds(Math.Round(value.TotalSeconds)));

    private static string YesNo(bool? value) => value switch
    {
        true => "yes",
        false => "no",
        null => "not known",
    };

    private static IReadOnlyList<MeasurementTarget> ResolveTargets(string text, bool isPostgreSql, string? dsnFile, string? payload, double share)
    {
        if (!EndpointSyntax.TryParse(text, out var pattern, out _)
            || (pattern!.Network is { } network && network.PrefixLength != (network.BaseAddress.AddressFamily == AddressFamily.InterNetwork ? 32 : 128)))
        {
            throw new MeasurementException($"{text}: expected HOST:PORT, such as 10.0.2.2:5432, [fd00::1]:5432 or db.example.org:5432");
        }

        if (isPostgreSql && dsnFile is null)
        {
            throw new MeasurementException("--protocol postgresql needs --dsn-file: a session that does not log in is closed by the server");
        }

        if (!isPostgreSql && dsnFile is not null)
        {
            throw new MeasurementException("--dsn-file is for --protocol postgresql");
        }

        if (isPostgreSql && payload is not null)
        {
            throw new MeasurementException("--payload is for --protocol tcp; PostgreSQL sessions send SELECT 1");
        }

        NpgsqlConnectionStringBuilder? dsn = isPostgreSql ? DsnFile.Read(dsnFile!) : null;
        IReadOnlyList<IPAddress> addresses = pattern.Network is { } one ? [one.BaseAddress] : Resolve(pattern.Host!);
        return [.. addresses.Select(address => new MeasurementTarget
        {
            Host = pattern.Host ?? address.ToString(),
            Endpoint = new IPEndPoint(address, pattern.Port),
            Protocol = isPostgreSql ? UpstreamProtocol.PostgreSql : UpstreamProtocol.Tcp,
            Dsn = dsn,
            Payload = payload is null ? default : Encoding.UTF8.GetBytes(Unescape(payload)),
            SlotShare = share,
        })];
    }

    private static IPAddress[] Resolve(string host)
    {
        try
        {
            return Dns.GetHostAddresses(host) is { Length: > 0 } addresses ? addresses : throw new MeasurementException($"{host}: has no address");
        }
        catch (SocketException e)
        {
            throw new MeasurementException($"{host}: {e.Message}");
        }
    }

    private static string Unescape(string text) => text
        .Replace("\\r", "\r", StringComparison.Ordinal)
        .Replace("\\n", "\n", StringComparison.Ordinal)
        .Replace("\\0", "\0", StringComparison.Ordinal);

    /// <summary>As <see cref="Percentage"/> reads it.</summary>
    private static string Percent(double share) => (share * 100).ToString("0.##", CultureInfo.InvariantCulture) + "%";

    private static double? Percentage(System.CommandLine.Parsing.ArgumentResult result, string option, double least, double most)
    {
        if (result.Tokens.Count == 1
            && double.TryParse(result.Tokens[0].Value.TrimEnd('%'), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var percent)
            && percent >= least && percent <= most)
        {
            return percent / 100;
        }

        result.AddError(string.Create(CultureInfo.InvariantCulture, $"{option}: expected a percentage from {least}% to {most}%"));
        return null;
    }

    /// <summary>On a terminal one line that is written anew; elsewhere a line whenever something was learnt.</summary>
    private sealed class ProgressLine(TextWriter output, bool isTerminal, int width)
    {
        private (TimeSpan Lower, TimeSpan? Upper) _told;
        private bool _shown;

        public void Show(LadderProgress progress)
        {
            var known = (progress.Lower, progress.Upper);
            if (!isTerminal && known == _told)
            {
                return;
            }

            _told = known;
            var share = progress.Elapsed / (progress.Elapsed + progress.Left + TimeSpan.FromTicks(1));
            var learnt = progress.Upper is { } upper ? $"between {Precisely(progress.Lower)} and {Precisely(upper)}" : $"survives {Precisely(progress.Lower)}";
            var left = $"{(progress.Upper is null ? "at most " : "")}{Duration.ForPeople(progress.Left)} left";
            var text = $"{Duration.ForPeople(progress.Elapsed)}, {left}: {learnt}; {progress.Idling} idle";
            if (isTerminal)
            {
                var bar = Math.Clamp(width - text.Length - 3, 0, 30);
                output.Write($"\r{GapPicture.Bar(share, bar)} {text}\u001b[K");
                _shown = true;
            }
            else
            {
                output.WriteLine(text);
            }
        }

        public void Clear()
        {
            if (_shown)
            {
                output.Write("\r\u001b[K");
            }
        }
    }
}
