using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Observation;

/// <summary>Asks both sides of one [check:…] section, such as the version of a program and the one that its database is for.</summary>
internal sealed class CheckScan(CheckSection section, string? dsnFile)
{
    /// <summary>Longer texts are cut: versions are short.</summary>
    private const int MostShown = 200;

    /// <summary>Asks both; what cannot be had is said in <see cref="CheckStatus.Problem"/>.</summary>
    public async Task<CheckStatus> ScanAsync(CheckStatus? last, CancellationToken cancellation)
    {
        var sides = await Task.WhenAll(AskAsync("expected", section.Expected, cancellation), AskAsync("actual", section.Actual, cancellation)).ConfigureAwait(false);
        return new CheckStatus { Name = section.Name, Expected = sides[0].Output, Actual = sides[1].Output, Problem = sides[0].Problem ?? sides[1].Problem };
    }

    private async Task<CommandAnswer> AskAsync(string side, CheckSide asked, CancellationToken cancellation)
    {
        var answer = asked.Command is not null
            ? await CheckCommand.RunAsync(section, side, cancellation).ConfigureAwait(false)
            : await QueryAsync(asked.Query!, cancellation).ConfigureAwait(false);
        return answer.Problem is { } problem
            ? new CommandAnswer(null, $"{side}: {problem}")
            : answer with { Output = answer.Output!.Length > MostShown ? answer.Output[..MostShown] : answer.Output };
    }

    private async Task<CommandAnswer> QueryAsync(string query, CancellationToken cancellation)
    {
        await using var probe = new SessionProbe(() => DsnFile.Read(dsnFile!));
        try
        {
            return await probe.ReadTextAsync(query, cancellation).ConfigureAwait(false) is { } text
                ? new CommandAnswer(text, null)
                : new CommandAnswer(null, "the query answers nothing");
        }
        catch (ServerProbeException e)
        {
            return new CommandAnswer(null, e.Message);
        }
    }
}
