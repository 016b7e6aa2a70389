using System.Text.Json;
using System.Text.Json.Serialization;
using Sidecar.Agent.Core.Settings;

namespace Sidecar.Agent.Configuration;

/// <summary>A configuration for programs (<c>check-config --json</c>): times in seconds, names as in the files.</summary>
internal sealed record ConfigurationView
{
    public required IReadOnlyList<string> Files { get; init; }
    public required IReadOnlyList<string> Warnings { get; init; }
    public required AgentView Agent { get; init; }
    public required IReadOnlyList<UpstreamView> Upstreams { get; init; }
    public required IReadOnlyList<WorkersView> Workers { get; init; }
    public required IReadOnlyList<HaproxyView> Haproxies { get; init; }
    public required IReadOnlyList<CheckView> Checks { get; init; }

    public static ConfigurationView From(SidecarConfiguration configuration) => new()
    {
        Files = configuration.Files,
        Warnings = configuration.Warnings,
        Agent = new AgentView(
            ConfigurationText.Name(configuration.Agent.Mode),
            configuration.Agent.Listen?.ToString(),
            configuration.Agent.HostNames,
            configuration.Agent.StateDirectory,
            configuration.Agent.RuntimeDirectory,
            configuration.Agent.ScanInterval.TotalSeconds,
            configuration.Agent.AllNetworkNamespaces ? "all" : "own",
            configuration.Agent.OtlpEndpoint?.AbsoluteUri),
        Upstreams =
        [
            .. configuration.Upstreams.Select(u => new UpstreamView(
                u.Name,
                [.. u.Endpoints.Select(e => e.Text)],
                ConfigurationText.Name(u.Direction),
                ConfigurationText.Name(u.Protocol),
                u.IdleTimeout.Source == IdleTimeoutSource.Measure ? "measure" : u.IdleTimeout.Source == IdleTimeoutSource.None ? "none" : "declared",
                u.IdleTimeout.Source == IdleTimeoutSource.Declared ? u.IdleTimeout.Value.TotalSeconds : null,
                ConfigurationText.Name(u.RefreshedBy),
                u.Keepalive,
                u.Recycle,
                u.DeadAfter?.TotalSeconds,
                u.DsnFile,
                u.ServerRole ?? "any",
                u.IsBuiltIn)),
        ],
        Workers =
        [
            .. configuration.Workers.Select(w => new WorkersView(
                w.Name, w.Unit, w.User, w.Executable, w.Terminate, w.Grace.TotalSeconds, w.Budget.Count, w.Budget.Period.TotalSeconds)),
        ],
        Haproxies = [.. configuration.Haproxies.Select(h => new HaproxyView(h.Name, h.Socket))],
        Checks =
        [
            .. configuration.Checks.Select(c => new CheckView(
                c.Name, c.Expected.Command, c.Expected.Query, c.Actual.Command, c.Actual.Query, c.Upstream, c.User, c.Interval.TotalSeconds, c.Timeout.TotalSeconds)),
        ],
    };

    internal sealed record HaproxyView(string Name, string Socket);

    internal sealed record CheckView(
        string Name, IReadOnlyList<string>? ExpectedCommand, string? ExpectedQuery, IReadOnlyList<string>? ActualCommand, string? ActualQuery,
        string? Upstream, string? User, double IntervalSeconds, double TimeoutSeconds);

    internal sealed record AgentView(
        string Mode, string? Listen, IReadOnlyList<string> HostNames, string StateDirectory, string RuntimeDirectory, double ScanIntervalSeconds, string NetworkNamespaces, string? OtlpEndpoint);

    internal sealed record UpstreamView(
        string Name, IReadOnlyList<string> Endpoints, string Direction, string Protocol, string IdleTimeout, double? IdleTimeoutSeconds,
        string RefreshedBy, bool Keepalive, bool Recycle, double? DeadAfterSeconds, string? DsnFile, string ServerRole, bool BuiltIn);

    internal sealed record WorkersView(
        string Name, string? Unit, string? User, string? Executable, bool Terminate, double GraceSeconds, int BudgetCount, double BudgetSeconds);
}

/// <summary>JSON of the configuration, without reflection.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(ConfigurationView))]
internal sealed partial class ConfigurationJson : JsonSerializerContext
{
    private static ConfigurationJson? _indented;

    /// <summary>The same, laid out for reading.</summary>
    public static ConfigurationJson Indented => _indented ??= new ConfigurationJson(new JsonSerializerOptions(Default.Options) { WriteIndented = true });
}
