using System.Text.Json;

namespace Sidecar.LabTests;

/// <summary>What the doctor says must be so: with the right missing, it says which, and its exit code tells.</summary>
public sealed class DoctorTests
{
    [Fact]
    public async Task With_all_rights_and_grants_everything_that_is_configured_is_possible()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var agent = await lab.StartAgentAsync(new AgentOptions { Keepalive = true, Terminate = true, Sessions = true });

        var doctor = await agent.RunAsync("doctor", "--json");

        doctor.ExitCode.ShouldBe(0, doctor.Output + doctor.Error);
        using var json = JsonDocument.Parse(doctor.Output);
        json.RootElement.GetProperty("possible").GetBoolean().ShouldBeTrue();
        var findings = json.RootElement.GetProperty("findings").EnumerateArray().ToList();
        findings.Where(f => f.GetProperty("needed").GetBoolean()).ShouldAllBe(f => f.GetProperty("state").GetString() == "works");
        findings.Select(f => f.GetProperty("detail").GetString()!).ShouldContain(d => d.Contains("pg_signal_backend"));
        json.RootElement.GetProperty("advice").GetProperty("orders-db").EnumerateArray().Select(l => l.GetString()!)
            .ShouldContain(l => l.StartsWith("server: tcp_keepalives_idle = 7200 s, the path forgets after 350 s"));
        doctor.Output.ShouldNotContain(AgentProcess.Password);

        var table = await agent.RunAsync("doctor");
        table.Output.Split('\n').ShouldAllBe(line => line.Length <= 80);
        table.Output.ShouldContain("set keepalive on the socket of a child of its own");
        (await agent.RunAsync("status")).Output.ShouldContain("tcp_user_timeout = 0");
    }

    [Theory]
    [InlineData("net_admin", "CAP_NET_ADMIN is missing")]
    [InlineData("sys_ptrace", "no keepalive can be set")]
    [InlineData("dac_read_search,-dac_override", "CAP_DAC_READ_SEARCH is missing")]
    [InlineData("kill", "cannot be signalled (CAP_KILL)")]
    public async Task Without_a_right_it_says_what_is_not_possible_and_fails(string capability, string said)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var agent = await lab.StartAgentAsync(new AgentOptions { Keepalive = true, Terminate = true });

        var doctor = await agent.RunUnderAsync(["setpriv", "--inh-caps", "-all", "--bounding-set", $"-{capability}", "--"], "doctor", "--json");

        doctor.ExitCode.ShouldBe(1, doctor.Output + doctor.Error);
        using var json = JsonDocument.Parse(doctor.Output);
        json.RootElement.GetProperty("findings").EnumerateArray()
            .Where(f => f.GetProperty("needed").GetBoolean() && f.GetProperty("state").GetString() == "does-not")
            .ShouldContain(f => f.GetProperty("detail").GetString()!.Contains(said), doctor.Output);
    }

    [Fact]
    public async Task Without_any_privilege_it_still_answers()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var agent = await lab.StartAgentAsync(new AgentOptions { Keepalive = true, User = "www-data" });

        var doctor = await agent.RunUnderAsync(["setpriv", "--reuid", "www-data", "--clear-groups", "--"], "doctor");

        doctor.ExitCode.ShouldBe(1, doctor.Output + doctor.Error);
        doctor.Output.ShouldContain("CAP_NET_ADMIN is missing");
        doctor.Output.ShouldContain("a child of its own that shut itself off");
    }

    [Fact]
    public async Task Without_a_grant_it_names_the_grant()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        await using (var database = await lab.Database.ConnectLocallyAsync())
        {
            await using var revoke = new Npgsql.NpgsqlCommand("REVOKE pg_signal_backend FROM sidecar", database);
            await revoke.ExecuteNonQueryAsync();
        }

        var agent = await lab.StartAgentAsync(new AgentOptions { Sessions = true });

        var doctor = await agent.RunAsync("doctor");
        doctor.ExitCode.ShouldBe(1);
        doctor.Output.ShouldContain("NO  orphaned back-ends cannot be ended: GRANT pg_signal_backend");
    }

    [Fact]
    public async Task Behind_source_NAT_it_says_that_no_back_end_can_be_proven()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1, Masquerade = true });
        var agent = await lab.StartAgentAsync(new AgentOptions { Sessions = true });

        var doctor = await agent.RunAsync("doctor");
        doctor.ExitCode.ShouldBe(1);
        doctor.Output.ShouldContain("source NAT");
    }
}
