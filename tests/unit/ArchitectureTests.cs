using Shouldly;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Core;
using Sidecar.Agent.Service;
using Sidecar.CoreTests;
using Sidecar.Probes;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests;

/// <summary>
/// Which part knows which (what the core may use: tests/core). Read from the compiled assemblies, so that every use
/// counts: in signatures, in bodies, in fields, in lambdas.
/// </summary>
public sealed class ArchitectureTests
{
    [Fact]
    public void Probes_know_nothing_of_the_agent()
    {
        using var probes = AssemblyUses.Open(typeof(KernelException));
        AssemblyUses.References(probes).ShouldBe(["Npgsql", "Sidecar.Values"]);
        using var values = AssemblyUses.Open(typeof(SocketObservation));
        AssemblyUses.References(values).ShouldBeEmpty();
    }

    [Fact]
    public void The_audit_knows_neither_the_agent_nor_its_core()
    {
        using var audit = AssemblyUses.Open(typeof(AuditReport));
        AssemblyUses.References(audit).ShouldBe(["Sidecar.Probes", "Sidecar.Values"]);
    }

    /// <summary>A room is a folder directly below agent/ or probes/; namespaces are those of the folders.</summary>
    [Fact]
    public void No_two_rooms_use_each_other()
    {
        var arrows = new HashSet<(string From, string To)>();
        foreach (var type in new[] { typeof(AgentLoop), typeof(AgentCore), typeof(AuditReport), typeof(KernelException), typeof(SocketObservation) })
        {
            using var assembly = AssemblyUses.Open(type);
            foreach (var (by, used) in AssemblyUses.Uses(assembly, "Sidecar"))
            {
                if (Room(by) is { } from && Room(used) is { } to && from != to)
                {
                    arrows.Add((from, to));
                }
            }
        }

        arrows.ShouldContain(("Sidecar.Agent.Observation", "Sidecar.Probes.SockDiag"));
        arrows.ShouldContain(("Sidecar.Agent.Service", "Sidecar.Agent.Core"));
        arrows.Where(arrow => string.CompareOrdinal(arrow.From, arrow.To) < 0 && arrows.Contains((arrow.To, arrow.From)))
            .Select(arrow => $"{arrow.From} and {arrow.To}").ShouldBeEmpty();
    }

    [Theory]
    [InlineData("Sidecar.Agent.Observation", "Sidecar.Probes.Values.SocketObservation")]
    [InlineData("Sidecar.Agent.Measurement", "System.DateTimeOffset.get_UtcNow")]
    [InlineData("Sidecar.Agent.Observation", "System.Net.Dns")]
    [InlineData("Sidecar.Agent.Telemetry", "System.IO.File")]
    public void The_check_sees_what_is_used(string from, string used)
    {
        using var agent = AssemblyUses.Open(typeof(AgentLoop));
        AssemblyUses.Uses(agent, from).Select(use => use.Used).ShouldContain(used);
    }

    /// <summary>The first three parts of a namespace; null for what is not the project's, and for what stands directly in agent/ or probes/.</summary>
    private static string? Room(string name)
    {
        var parts = name.Split('.');
        return parts is ["Sidecar", _, _, _, ..] ? string.Join('.', parts.Take(3)) : null;
    }
}
