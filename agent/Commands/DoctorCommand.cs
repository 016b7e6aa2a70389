using System.Text.Json;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Doctor;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Values;
using Spectre.Console;

namespace Sidecar.Agent.Commands;

/// <summary><c>doctor</c>: which layers work on this host, each proved by doing it to something of its own.</summary>
internal static class DoctorCommand
{
    /// <summary>Hidden command that the doctor's own child process runs.</summary>
    public const string ChildCommand = "doctors-child";

    public static int Execute(CommandEnvironment environment, string? configurationPath, bool json)
    {
        if (!ConfigurationSource.TryLoad(environment, configurationPath, out var configuration))
        {
            return ExitCodes.BadConfiguration;
        }

        var checks = new HostChecks(configuration);
        var (program, arguments) = Self();
        var findings = new List<Finding>(checks.Thorough(program, arguments));
        findings.InsertRange(1, checks.Quick());
        var running = AskRunning(configuration);
        var advice = new Dictionary<string, IReadOnlyList<string>>(StringComparer.Ordinal);
        foreach (var upstream in configuration.Upstreams)
        {
            findings.AddRange(ServerChecks.For(upstream, out var settings));
            if (Advise(upstream, settings, running) is { Count: > 0 } lines)
            {
                advice[upstream.Name] = lines;
            }
        }

        // The doctor's rights are its caller's. What the service itself may not do, it says.
        findings.AddRange((running?.Limitations ?? []).Select(line => new Finding("the running agent", FindingState.DoesNot, false, line)));
        var possible = !findings.Exists(finding => finding.IsInTheWay);
        if (json)
        {
            var document = new DoctorDocument { Possible = possible, Findings = [.. findings.Select(FindingView.From)], Advice = advice };
            environment.Out.WriteLine(JsonSerializer.Serialize(document, DoctorJson.Default.DoctorDocument));
        }
        else
        {
            Show(environment, findings, advice, possible);
        }

        return possible ? ExitCodes.Ok : ExitCodes.Failure;
    }

    /// <summary>This program, as a child of itself.</summary>
    private static (string Program, IReadOnlyList<string> Arguments) Self()
    {
        var path = Environment.ProcessPath ?? "/proc/self/exe";

        // Run as `dotnet conn-sidecar.dll` the program is the host, and the assembly its first argument.
        return string.Equals(Path.GetFileName(path), "dotnet", StringComparison.Ordinal)
            ? (path, [Path.Combine(AppContext.BaseDirectory, "conn-sidecar.dll"), ChildCommand])
            : (path, [ChildCommand]);
    }

    private static StatusDocument? AskRunning(SidecarConfiguration configuration)
    {
        try
        {
            return new ControlClient(configuration.Agent.RuntimeDirectory).Status();
        }
        catch (ControlException)
        {
            return null;
        }
    }

    /// <summary>The running agent knows what it has measured; without one what is declared must do.</summary>
    private static IReadOnlyList<string> Advise(UpstreamSection upstream, ServerSettings? settings, StatusDocument? running) =>
        running?.Upstreams.FirstOrDefault(view => string.Equals(view.Name, upstream.Name, StringComparison.Ordinal)) is { } known
            ? Advisor.For(upstream, known is { IdleTimeoutLowerSeconds: { } lower, IdleTimeoutUpperSeconds: not null } ? TimeSpan.FromSeconds(lower) : null, upstream.RefreshedBy == IdleClock.Data, settings)
            : Advisor.For(upstream, upstream.IdleTimeout.Source == IdleTimeoutSource.Declared ? upstream.IdleTimeout.Value : null, upstream.RefreshedBy == IdleClock.Data, settings);

    private static void Show(CommandEnvironment environment, List<Finding> findings, Dictionary<string, IReadOnlyList<string>> advice, bool possible)
    {
        var console = environment.CreateConsole();
        string? layer = null;
        foreach (var finding in findings)
        {
            if (!string.Equals(layer, finding.Layer, StringComparison.Ordinal))
            {
                layer = finding.Layer;
                console.WriteIndented(0, layer, new Style(decoration: Decoration.Bold));
            }

            var (word, style) = finding switch
            {
                { State: FindingState.Works } => ("ok", new Style(Color.Green)),
                { IsNeeded: true } => ("NO", new Style(Color.Red)),
                { State: FindingState.NotTried } => ("--", Style.Plain),
                _ => ("no", new Style(Color.Yellow)),
            };
            console.WriteIndented(2, $"{word}  {finding.Detail}", style);
        }

        foreach (var (upstream, lines) in advice)
        {
            console.WriteIndented(0, $"advice for {upstream}", new Style(decoration: Decoration.Bold));
            foreach (var line in lines)
            {
                console.WriteIndented(2, $"!   {line}", new Style(Color.Yellow));
            }
        }

        console.WriteLine();
        console.WriteIndented(0, possible
            ? "All remedies that the configuration asks for are possible here."
            : "NO: something that the configuration asks for is not possible here.", Style.Plain);
    }
}
